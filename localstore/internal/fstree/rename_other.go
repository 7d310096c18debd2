//go:build !linux

package fstree

import "golang.org/x/sys/unix"

func renameNoReplace(fromDir int, from string, toDir int, to string) error {
	return renameChecked(fromDir, from, toDir, to)
}

func chmodNoFollow(dir int, name string, mode uint32) error {
	return retry(func() error { return unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW) })
}

func exchange(int, string, int, string) error { return unix.ENOSYS }
