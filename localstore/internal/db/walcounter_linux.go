package db

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layout of the index's header (SQLite's file format documentation, "WAL-Index Header"), in native byte order.
const (
	walIndexVersion      = 3007000
	walIndexHeaderSize   = 48
	walIndexChangeOffset = 8
)

// walCounter is the number of commits in the header of a mapped index of a write-ahead log.
// It stays mapped for good, so that a late reader finds memory; a database is opened seldom, and it is one page.
type walCounter struct{ value *uint32 }

func (c *walCounter) load() uint32 { return atomic.LoadUint32(c.value) }

// mapWALCounter maps the header of the index at path, which an open connection must have created.
//
// Closing any descriptor of a file gives up all POSIX locks that the process holds on it, and SQLite's are such.
// So the file is opened and closed on a thread that has taken leave of the process's table of descriptors
// and whose closing therefore concerns no lock of ours. The thread ends with its goroutine.
func mapWALCounter(path string) (*walCounter, error) {
	var header []byte
	var err error
	onOwnThread(func() {
		if err = unix.Unshare(unix.CLONE_FILES); err != nil {
			return
		}
		var fd int
		if fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err != nil {
			return
		}
		header, err = mapHeader(fd)
		unix.Close(fd)
	})
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	if version := *(*uint32)(unsafe.Pointer(&header[0])); version != walIndexVersion {
		err := fmt.Errorf("map %s: unknown version %d", path, version)
		return nil, errors.Join(err, unix.Munmap(header))
	}
	return &walCounter{(*uint32)(unsafe.Pointer(&header[walIndexChangeOffset]))}, nil
}

func mapHeader(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size < walIndexHeaderSize {
		return nil, errors.New("no header")
	}
	return unix.Mmap(fd, 0, walIndexHeaderSize, unix.PROT_READ, unix.MAP_SHARED)
}

// onOwnThread runs f on a thread that is thrown away afterwards.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		// The runtime cannot throw the process's first thread away. While this goroutine sits on it, the next gets another.
		if unix.Gettid() == unix.Getpid() {
			onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}
