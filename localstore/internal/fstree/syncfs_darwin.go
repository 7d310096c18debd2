package fstree

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of sys/fsctl.h: write a volume out, the disk's own cache too, and wait for it.
const (
	fsctlSyncVolume = 0x80044101 // FSIOC_SYNC_VOLUME, _IOW('A', 1, uint32_t)
	fsctlSyncFull   = 1 << 0
	fsctlSyncWait   = 1 << 1
)

// SyncFS makes everything on the directory's volume durable. sync(2) waits for nothing here.
func (d *Dir) SyncFS() error {
	flags := uint32(fsctlSyncFull | fsctlSyncWait)
	return retry(func() error {
		_, _, errno := unix.Syscall6(unix.SYS_FFSCTL, uintptr(d.fd), fsctlSyncVolume, uintptr(unsafe.Pointer(&flags)), 0, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.ENOTSUP, unix.ENOTTY, unix.EINVAL:
			// A file system that does not know it.
			return unix.Sync()
		}
		return errno
	})
}

// fsync makes a file durable: fsync(2) alone leaves it in the disk's cache here (libutil/unix/file-descriptor.cc).
func fsync(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0)
	if err == unix.ENOTSUP || err == unix.EINVAL || err == unix.ENOTTY {
		return unix.Fsync(fd)
	}
	return err
}
