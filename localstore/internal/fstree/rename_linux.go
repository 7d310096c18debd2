package fstree

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// renameNoReplace renames unless the new name is taken. Where the file system cannot do that in one step, the name
// is looked up first: the path lock keeps honest processes from coming between.
func renameNoReplace(fromDir int, from string, toDir int, to string) error {
	err := retry(func() error { return unix.Renameat2(fromDir, from, toDir, to, unix.RENAME_NOREPLACE) })
	if err != unix.EINVAL && err != unix.ENOSYS {
		return err
	}
	return renameChecked(fromDir, from, toDir, to)
}

// chmodNoFollow changes the mode of an entry that cannot be opened; a link is refused.
func chmodNoFollow(dir int, name string, mode uint32) error {
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return err
	}
	if isType(uint32(st.Mode), unix.S_IFLNK) {
		return unix.EOPNOTSUPP
	}
	return retry(func() error { return unix.Chmod(procPath(fd), mode) })
}

// procPath names an open file, whatever it is, for calls that take no descriptor of that kind.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// exchange swaps two names in one step; it fails with EINVAL or ENOSYS where that cannot be done.
func exchange(aDir int, a string, bDir int, b string) error {
	return retry(func() error { return unix.Renameat2(aDir, a, bDir, b, unix.RENAME_EXCHANGE) })
}
