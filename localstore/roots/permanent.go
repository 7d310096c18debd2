package roots

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/storepath"
)

// maxDepth bounds the nesting of directories, each of which costs a descriptor. Users can write there.
const maxDepth = 128

const (
	// scanners is how many goroutines look for roots of one kind, at most.
	scanners = 4

	// minPart is how many links are worth a goroutine.
	minPart = 64
)

// unknownType asks for the type of an entry to be found out.
const unknownType = fs.ModeIrregular

// Permanent gives the roots below gcroots and profiles, and removes links of gcroots/auto that lead nowhere.
func Permanent(ctx context.Context, o Options) (Roots, error) {
	o = o.withDefaults()
	state, err := os.Open(o.StateDir)
	if err != nil {
		return nil, fmt.Errorf("find roots: %w", err)
	}
	defer state.Close()
	w := &walker{Options: &o, ctx: ctx, auto: filepath.Join(o.StateDir, "gcroots", "auto") + "/", slots: make(chan struct{}, scanners-1)}
	for _, name := range []string{"gcroots", "profiles"} {
		path := filepath.Join(o.StateDir, name)
		if _, err := os.Lstat(path); os.IsNotExist(err) {
			continue
		}
		if err := w.entry(int(state.Fd()), name, path, unknownType, 0); err != nil {
			return nil, err
		}
	}
	return o.check(ctx, w.found)
}

// walker is one walk through directories of roots.
type walker struct {
	*Options
	ctx   context.Context
	auto  string        // the directory of indirect roots, with a slash at its end
	slots chan struct{} // one for each further goroutine
	found []candidate
}

// entry looks at one entry of the open directory dir; path is its name for people.
func (w *walker) entry(dir int, name, path string, kind fs.FileMode, depth int) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	err := w.look(dir, name, path, kind, depth)
	if isPermanent(err) {
		w.info("cannot read potential root \"%s\"", path)
		return nil
	}
	return err
}

func (w *walker) look(dir int, name, path string, kind fs.FileMode, depth int) error {
	if kind == unknownType {
		var err error
		if kind, err = typeOf(dir, name); err != nil {
			return fmt.Errorf("find roots in \"%s\": %w", path, err)
		}
	}
	switch kind {
	case fs.ModeDir:
		return w.directory(dir, name, path, depth)
	case fs.ModeSymlink:
		return w.link(dir, name, path)
	case 0:
		if p, err := storepath.ParseBase(name); err == nil {
			w.found = append(w.found, candidate{target: p, label: path})
		}
	}
	return nil
}

func typeOf(dir int, name string) (fs.FileMode, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return 0, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fs.ModeDir, nil
	case unix.S_IFLNK:
		return fs.ModeSymlink, nil
	case unix.S_IFREG:
		return 0, nil
	}
	return fs.ModeDevice, nil
}

func (w *walker) directory(parent int, name, path string, depth int) error {
	if depth == maxDepth {
		return fmt.Errorf("find roots in \"%s\": %w", path, unix.ELOOP)
	}
	dir, err := openDir(parent, name, path)
	if err != nil {
		return fmt.Errorf("find roots in \"%s\": %w", path, err)
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("find roots in \"%s\": %w", path, err)
	}
	return w.entries(int(dir.Fd()), path, entries, depth+1)
}

// entries looks at the entries of a directory. Many are divided among goroutines, as long as there are slots: nearly all of
// the time is the kernel's, which looks each link up.
func (w *walker) entries(dir int, path string, entries []fs.DirEntry, depth int) error {
	half := len(entries) / 2
	if half >= minPart && w.slot() {
		other := *w
		other.found = nil
		var failed error
		var group sync.WaitGroup
		group.Go(func() {
			defer func() { <-w.slots }()
			failed = other.entries(dir, path, entries[half:], depth)
		})
		err := w.entries(dir, path, entries[:half], depth)
		group.Wait()
		w.found = append(w.found, other.found...)
		if err == nil {
			err = failed
		}
		return err
	}
	for _, e := range entries {
		if err := w.entry(dir, e.Name(), path+"/"+e.Name(), e.Type(), depth); err != nil {
			return err
		}
	}
	return nil
}

// slot tells whether there may be one more goroutine.
func (w *walker) slot() bool {
	select {
	case w.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func openDir(parent int, name, path string) (*os.File, error) {
	fd, err := openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (w *walker) link(dir int, name, path string) error {
	target, err := readlinkat(dir, name)
	if err != nil {
		return fmt.Errorf("read root \"%s\": %w", path, err)
	}
	if w.isInStore(target) {
		w.root(path, target)
		return nil
	}
	if !filepath.IsAbs(target) {
		target = filepath.Dir(path) + "/" + target
	}
	target = filepath.Clean(target)
	second, err := readlinkat(unix.AT_FDCWD, target)
	switch err {
	case nil:
		if w.isInStore(second) {
			w.root(w.label(target, second), second)
		}
		return nil
	case unix.EINVAL: // exists and is no link
		return nil
	case unix.ENOENT, unix.ENOTDIR:
		if strings.HasPrefix(path, w.auto) {
			w.removeStale(dir, name, path, target)
		}
		return nil
	}
	return fmt.Errorf("read root \"%s\": %w", target, err)
}

// label is the name of an indirect root. Links of /proc tell what other people's programs use, which is not for everybody
// to see; that it is a root does no harm.
func (w *walker) label(target, text string) string {
	if w.Censor && isOfProc(target, text) {
		return Censored
	}
	return target
}

// removeStale removes a link whose target is gone. The target may come back meanwhile, and whoever made it may have
// found the link in its place: then the link must be there in the end. That it cannot be removed does no harm.
func (w *walker) removeStale(dir int, name, path, target string) {
	w.info("removing stale link from \"%s\" to \"%s\"", path, target)
	text, err := readlinkat(dir, name)
	if err != nil || unix.Unlinkat(dir, name, 0) != nil {
		return
	}
	if second, err := readlinkat(unix.AT_FDCWD, target); err == nil {
		if err := unix.Symlinkat(text, dir, name); err != nil && err != unix.EEXIST {
			w.info("cannot restore root \"%s\": %v", path, err)
		}
		if w.isInStore(second) {
			w.root(w.label(target, second), second)
		}
	}
}

func (w *walker) root(label, text string) {
	if p, ok := w.storePath(text); ok {
		w.found = append(w.found, candidate{p, label, text})
	}
}

func (w *walker) isInStore(target string) bool {
	return len(target) > len(w.Dir)+1 && strings.HasPrefix(target, string(w.Dir)) && target[len(w.Dir)] == '/'
}
