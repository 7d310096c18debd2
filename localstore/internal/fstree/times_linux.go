package fstree

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// canonicalTimes leaves the access time alone.
func canonicalTimes() [2]unix.Timespec {
	return [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1}}
}

// setTime gives an open file the modification time of the store.
func setTime(fd int) error {
	times := canonicalTimes()
	return retry(func() error {
		if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times[0])), 0, 0, 0); errno != 0 {
			return errno
		}
		return nil
	})
}

// setTimeAt does the same to an entry, which may be a link, without opening it.
func setTimeAt(dir int, name string) error {
	times := canonicalTimes()
	return retry(func() error { return unix.UtimesNanoAt(dir, name, times[:], unix.AT_SYMLINK_NOFOLLOW) })
}

func mtimeIsCanonical(st *unix.Stat_t) bool { return st.Mtim.Sec == 1 && st.Mtim.Nsec == 0 }
