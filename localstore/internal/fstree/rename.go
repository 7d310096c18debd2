package fstree

import "golang.org/x/sys/unix"

func renameChecked(fromDir int, from string, toDir int, to string) error {
	var st unix.Stat_t
	if err := fstatat(toDir, to, &st); err == nil {
		return unix.EEXIST
	} else if err != unix.ENOENT {
		return err
	}
	return retry(func() error { return unix.Renameat(fromDir, from, toDir, to) })
}
