package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Records is the directory <state>/cgroups: a file for each build user, named by its uid, with the path of the group that
// it was last in. Whoever holds the user's lock may use its record.
type Records string

// Begin destroys the group that the user was last in, if it is still there, and records the next one, which is about
// to be made.
func (r Records) Begin(uid uint32, next string) error {
	if err := os.MkdirAll(string(r), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(string(r), strconv.FormatUint(uint64(uid), 10)), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(begin(f, uid, next), f.Close())
}

func begin(f *os.File, uid uint32, next string) error {
	last, err := io.ReadAll(io.LimitReader(f, unix.PathMax))
	if err != nil {
		return err
	}
	if err := destroyLeftover(string(last), UserName(uid)); err != nil {
		return err
	}
	if string(last) == next {
		return nil
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(next), 0)
	return err
}

// destroyLeftover destroys the group at path. It may be upstream's, made under other rules than ours, so only the name
// has to be right: to kill all of any other cgroup must never happen.
func destroyLeftover(path, name string) error {
	if path == "" {
		return nil
	}
	if !filepath.IsAbs(path) || filepath.Base(path) != name {
		return fmt.Errorf("\"%s\" is not a cgroup", path)
	}
	dir, err := openGroup(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = (&Group{path: path, dir: dir}).Destroy()
	return err
}
