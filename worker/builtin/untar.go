package builtin

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxName bounds the names in an archive; no file system takes longer ones.
const maxName = 4096

// untar makes the files of a tar archive beneath a directory, as libarchive does for upstream with the flags
// SECURE_SYMLINKS and SECURE_NODOTDOT: a later entry replaces an earlier one of its name, directories that are not
// in the archive are made, a leading "/" is dropped, and a name with ".." or that leads through a link is an error.
// Times, owners and set-id bits are not restored: what becomes a store object has none of its own.
type untar struct {
	top         *os.File
	compression string
}

func (u *untar) extract(r io.Reader) error {
	const open, extract = "failed to open archive: %s", "failed to extract archive (%s)"
	tr := tar.NewReader(r)
	for format := open; ; format = extract {
		header, err := tr.Next()
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, tar.ErrHeader) && format == open:
			return failf(format, "Unrecognized archive format")
		case err != nil:
			return failf(format, archiveText(err, u.compression))
		}
		if err := u.entry(header, tr); err != nil {
			return failf(extract, archiveText(err, u.compression))
		}
	}
}

func (u *untar) entry(h *tar.Header, contents io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := splitName(h.Name)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		// The top is there already.
		if h.Typeflag == tar.TypeDir {
			return nil
		}
		return fmt.Errorf("'%s' is not a directory", h.Name)
	}
	parent, err := u.enter(parts[:len(parts)-1], true)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	name := parts[len(parts)-1]
	if err := u.make(parent, name, h, contents); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// splitName gives the components of a name in an archive.
func splitName(name string) ([]string, error) {
	if len(name) > maxName {
		return nil, fmt.Errorf("'%.40s...' is too long", name)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return nil, errors.New("name contains a null byte")
	}
	parts := strings.Split(name, "/")
	if slices.Contains(parts, "..") {
		return nil, errors.New("Path contains '..'")
	}
	return slices.DeleteFunc(parts, func(part string) bool { return part == "" || part == "." }), nil
}

// enter opens the directory that the components lead to, one at a time; what is missing is made if that is wanted.
func (u *untar) enter(parts []string, create bool) (int, error) {
	fd, err := unix.Dup(int(u.top.Fd()))
	if err != nil {
		return -1, os.NewSyscallError("dup", err)
	}
	unix.CloseOnExec(fd)
	for i, part := range parts {
		next, err := openDirAt(fd, part)
		if err == unix.ENOENT && create {
			if err = unix.Mkdirat(fd, part, 0o777); err == nil {
				next, err = openDirAt(fd, part)
			}
		}
		if (err == unix.ENOTDIR || err == unix.ELOOP) && isLink(fd, part) {
			err = errors.New("Cannot extract through symlink " + path.Join(parts[:i+1]...))
		}
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("%s: %w", path.Join(parts[:i+1]...), err)
		}
		fd = next
	}
	return fd, nil
}

func openDirAt(fd int, name string) (int, error) {
	return unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func isLink(fd int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

func (u *untar) make(parent int, name string, h *tar.Header, contents io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return makeTarDir(parent, name, h.FileInfo().Mode().Perm())
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return makeTarFile(parent, name, h.FileInfo().Mode().Perm(), contents)
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxName || strings.IndexByte(h.Linkname, 0) >= 0 {
			return errors.New("symbolic link has an invalid target")
		}
		return replacing(parent, name, func() error { return unix.Symlinkat(h.Linkname, parent, name) })
	case tar.TypeLink:
		return u.hardlink(parent, name, h.Linkname)
	}
	return fmt.Errorf("unsupported file type '%c'", h.Typeflag)
}

// makeTarDir makes a directory, which always stays readable, and writable for a build user, who puts the next entries into
// it: archives contain some that are neither. libarchive takes the right to write away in the end; so does the store.
func makeTarDir(parent int, name string, mode fs.FileMode) error {
	bits := uint32(mode | 0o700)
	err := unix.Mkdirat(parent, name, bits)
	if err != unix.EEXIST {
		return err
	}
	fd, err := openDirAt(parent, name)
	if err != nil {
		return replacing(parent, name, func() error { return unix.Mkdirat(parent, name, bits) })
	}
	return unix.Close(fd)
}

func makeTarFile(parent int, name string, mode fs.FileMode, contents io.Reader) error {
	var fd int
	err := replacing(parent, name, func() (err error) {
		fd, err = unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC,
			uint32(mode))
		return err
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(f, contents)
	return errors.Join(err, f.Close())
}

// hardlink gives the file called target a further name. A link that is the target itself gets one too; it is not
// followed.
func (u *untar) hardlink(parent int, name, target string) error {
	parts, err := splitName(target)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return errors.New("hard link has an invalid target")
	}
	dir, err := u.enter(parts[:len(parts)-1], false)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	from := parts[len(parts)-1]
	if same(dir, from, parent, name) {
		return nil
	}
	return replacing(parent, name, func() error { return unix.Linkat(dir, from, parent, name, 0) })
}

func same(dir1 int, name1 string, dir2 int, name2 string) bool {
	var a, b unix.Stat_t
	return unix.Fstatat(dir1, name1, &a, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		unix.Fstatat(dir2, name2, &b, unix.AT_SYMLINK_NOFOLLOW) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// replacing makes something whose name may be taken: by a file or link, or an empty directory, which then goes.
func replacing(parent int, name string, create func() error) error {
	err := create()
	if err != unix.EEXIST {
		return err
	}
	if err = unix.Unlinkat(parent, name, 0); err == unix.EISDIR || err == unix.EPERM {
		err = unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
	}
	if err != nil {
		return err
	}
	return create()
}
