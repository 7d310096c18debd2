package gc

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/activity"
)

// linksName is the directory of the store that has one more name of every optimised file.
const linksName = ".links"

// linksAtOnce is how many names are read from the directory at a time.
const linksAtOnce = 1024

// deleteUnusedLinks removes files that have no other name, and tells what the others save. An optimiser may at this moment
// be giving such a file another name: the file then only misses its next copy.
func (r *run) deleteUnusedLinks(ctx context.Context) error {
	r.info("deleting unused links...")
	path := r.o.Store.RealDir() + "/" + linksName
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("delete unused links: %w", err)
	}
	defer dir.Close()
	s := linkStatistics{run: r, path: path, fd: int(dir.Fd())}
	for {
		names, err := dir.Readdirnames(linksAtOnce)
		if err == io.EOF {
			break
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("delete unused links: %w", err)
		}
		for _, name := range names {
			if err := s.link(name); err != nil {
				return fmt.Errorf("delete unused link \"%s/%s\": %w", path, name, err)
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(s.fd, &st); err != nil {
		return fmt.Errorf("delete unused links: %w", err)
	}
	r.info("note: hard linking is currently saving %s", renderSize(s.unshared-s.actual-st.Blocks*512))
	return r.o.Step("links")
}

type linkStatistics struct {
	*run
	path string
	fd   int
	// Bytes that files occupy, and that they would occupy in addition if each name had its own.
	actual, unshared int64
}

func (s *linkStatistics) link(name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(s.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Nlink != 1 {
		s.actual += st.Size
		s.unshared += int64(st.Nlink-1) * st.Size
		return nil
	}
	s.req.Log.Message(activity.Talkative, fmt.Sprintf("deleting unused link \"%s/%s\"", s.path, name))
	if err := unix.Unlinkat(s.fd, name, 0); err != unix.ENOENT {
		return err
	}
	return nil
}

// sizeUnits are upstream's; what is below one KiB is shown in those, too.
const sizeUnits = "KKMGTPEZY"

// renderSize prints a number of bytes as upstream does (libutil/util.cc): a unit is left when its number passes 1024,
// which is found by division of whole numbers.
func renderSize(bytes int64) string {
	unit := 0
	abs := uint64(bytes)
	if bytes < 0 {
		abs = -abs
	}
	for abs > 1024 && unit < len(sizeUnits)-1 {
		unit++
		abs /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", float64(bytes)/math.Pow(1024, float64(max(1, unit))), sizeUnits[unit])
}
