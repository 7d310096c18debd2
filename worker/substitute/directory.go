package substitute

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"nixdaemon/worker/settings"
)

// Directory is a binary cache's files in a directory of this machine ("file://"). What is named in the cache is opened
// beneath the directory, whatever links there are.
type Directory struct {
	path string
	// made numbers temporary files.
	made *atomic.Uint64
}

var _ Objects = (*Directory)(nil)

// OpenDirectory finds the directory that a reference of the scheme file names, and makes what every cache has.
func OpenDirectory(ref settings.StoreReference) (*Directory, error) {
	dir, err := url.PathUnescape(ref.Authority)
	if err != nil {
		return nil, err
	}
	d := &Directory{path: path.Clean(dir), made: new(atomic.Uint64)}
	if err := os.MkdirAll(d.path, 0o777); err != nil {
		return nil, cannotMake(d.path+"/nar", err) // which is what upstream makes first
	}
	below := []string{"nar", "realisations", "log"}
	if index, _ := ref.Param("index-debug-info"); index == "true" || index == "1" {
		below = append(below, "debuginfo")
	}
	return d, d.within(func(root *os.Root) error {
		for _, name := range below {
			if err := root.MkdirAll(name, 0o777); err != nil {
				return cannotMake(d.path+"/"+name, err)
			}
		}
		return nil
	})
}

// cannotMake is upstream's text (libutil/file-system.cc, createDirs). The C library's begin with a large letter.
func cannotMake(dir string, err error) error {
	text := err.Error()
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		text = errno.Error()
	}
	return errorf(err, `creating directory %s: %s`, settings.QuotePath(dir), strings.ToUpper(text[:1])+text[1:])
}

// URI is the canonical name of the directory.
func (d *Directory) URI() string {
	u := url.URL{Path: d.path}
	return "file://" + u.EscapedPath()
}

// Names lists what is in the directory itself, in any order.
func (d *Directory) Names() ([]string, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// within gives f the directory as it is now: it may have been replaced since.
func (d *Directory) within(f func(*os.Root) error) error {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// check refuses names that do not stay within the cache, in upstream's words (local-binary-cache-store.cc).
func check(name string) error {
	switch {
	case name == "":
		return errorf(nil, "local binary cache path must not be empty")
	case strings.HasPrefix(name, "/"):
		return errorf(nil, "local binary cache path '%s' must not be absolute", name)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "." || segment == ".." {
			return errorf(nil, "local binary cache path '%s' must not contain '..' or '.' segments", name)
		}
	}
	return nil
}

// Get opens a regular file.
func (d *Directory) Get(_ context.Context, _ Asker, name string) (io.ReadCloser, error) {
	if err := check(name); err != nil {
		return nil, err
	}
	var f *os.File
	err := d.within(func(root *os.Root) (err error) {
		// Without O_NONBLOCK a pipe of that name would keep us waiting.
		f, err = root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, missing(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: d.path + "/" + name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// missing marks errors about what is not there.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errorf(ErrNoObject, "%s", err.Error())
	}
	return err
}

// Exists tells whether there is something of that name.
func (d *Directory) Exists(_ context.Context, _ Asker, name string) (bool, error) {
	if err := check(name); err != nil {
		return false, err
	}
	err := d.within(func(root *os.Root) error {
		_, err := root.Stat(name)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Put writes a temporary file beside the place, then renames it.
func (d *Directory) Put(ctx context.Context, _ Asker, name string, o Object) error {
	if err := check(name); err != nil {
		return err
	}
	return d.within(func(root *os.Root) error {
		if err := root.MkdirAll(path.Dir(name), 0o777); err != nil {
			return err
		}
		tmp := name + ".tmp." + strconv.Itoa(os.Getpid()) + "." + strconv.FormatUint(d.made.Add(1), 10)
		if err := writeFile(ctx, root, tmp, o); err != nil {
			return errors.Join(err, ignoreMissing(root.Remove(tmp)))
		}
		if err := root.Rename(tmp, name); err != nil {
			return errors.Join(err, ignoreMissing(root.Remove(tmp)))
		}
		return nil
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func writeFile(ctx context.Context, root *os.Root, name string, o Object) error {
	contents, _, err := o.Open()
	if err != nil {
		return err
	}
	defer contents.Close()
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, contextReader{ctx, contents})
	return errors.Join(err, f.Close())
}

// contextReader stops reading when the context has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
