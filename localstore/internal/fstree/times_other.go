//go:build !linux

package fstree

import "golang.org/x/sys/unix"

// setTime gives an open file the modification time of the store. The access time becomes the same: there is no
// portable call that leaves it.
func setTime(fd int) error {
	times := []unix.Timeval{{Sec: 1}, {Sec: 1}}
	return retry(func() error { return unix.Futimes(fd, times) })
}

// setTimeAt does the same to an entry, which may be a link, without opening it.
func setTimeAt(dir int, name string) error {
	times := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	return retry(func() error { return unix.UtimesNanoAt(dir, name, times, unix.AT_SYMLINK_NOFOLLOW) })
}

func mtimeIsCanonical(st *unix.Stat_t) bool { return st.Mtim.Sec == 1 && st.Mtim.Nsec == 0 }
