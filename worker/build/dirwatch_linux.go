package build

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// storeWatch learns which names in the store directory have come to lead elsewhere or nowhere, whoever did that.
type storeWatch struct {
	fd  int
	buf [16 << 10]byte
}

func watchStore(dir string) (*storeWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch store directory '%s': %w", dir, err)
	}
	const events = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, events); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch store directory '%s': %w", dir, err)
	}
	return &storeWatch{fd: fd}, nil
}

// changes calls changed for each name since the last time. It is false if there is more that it cannot tell.
func (w *storeWatch) changes(changed func(name string)) bool {
	for {
		n, err := unix.Read(w.fd, w.buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return true
		case err != nil || !events(w.buf[:n], changed):
			return false
		}
	}
}

// events reads struct inotify_event of linux/inotify.h, one after the other. It is false for anything but a name.
func events(data []byte, changed func(name string)) bool {
	for len(data) >= unix.SizeofInotifyEvent {
		mask, length := binary.NativeEndian.Uint32(data[4:]), binary.NativeEndian.Uint32(data[12:])
		data = data[unix.SizeofInotifyEvent:]
		if mask&(unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO) == 0 || uint64(length) > uint64(len(data)) {
			return false
		}
		name, _, _ := bytes.Cut(data[:length], []byte{0})
		changed(string(name))
		data = data[length:]
	}
	return len(data) == 0
}

func (w *storeWatch) close() { unix.Close(w.fd) }
