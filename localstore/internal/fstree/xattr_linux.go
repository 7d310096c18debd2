package fstree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

func removeXattrs(fd int, ignored []string) error {
	names, err := foreignXattrs(func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) }, ignored)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := retry(func() error { return unix.Fremovexattr(fd, name) }); err != nil {
			return fmt.Errorf("removing extended attribute '%s': %w", name, err)
		}
	}
	return nil
}

// removeXattrsAt does so for a symbolic link, which cannot be opened for reading.
func removeXattrsAt(dir int, name string, ignored []string) error {
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := foreignXattrs(func(buf []byte) (int, error) { return unix.Listxattr(procPath(fd), buf) }, ignored)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := retry(func() error { return unix.Removexattr(procPath(fd), name) }); err != nil {
			return fmt.Errorf("removing extended attribute '%s': %w", name, err)
		}
	}
	return nil
}

// foreignXattrs lists the names, leaving out the ignored ones. That there is no such thing here means none.
func foreignXattrs(list func([]byte) (int, error), ignored []string) ([]string, error) {
	var small [256]byte
	buf := small[:]
	for {
		n, err := list(buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ERANGE:
			if n, err = list(nil); err != nil {
				return nil, err
			}
			buf = make([]byte, n+256)
			continue
		case errors.Is(err, unix.ENOTSUP) || err == unix.ENODATA || err == unix.ENOENT:
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("querying extended attributes: %w", err)
		}
		return splitXattrs(buf[:n], ignored), nil
	}
}

func splitXattrs(list []byte, ignored []string) []string {
	var names []string
	for name := range bytes.SplitSeq(list, []byte{0}) {
		if len(name) > 0 && !slices.Contains(ignored, string(name)) {
			names = append(names, string(name))
		}
	}
	return names
}

func hasDefaultACL(fd int) bool {
	n, err := unix.Fgetxattr(fd, "system.posix_acl_default", nil)
	return err == nil && n > 0
}
