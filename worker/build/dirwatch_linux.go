package build

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// dirWatch learns which names in directories have come to lead elsewhere or nowhere, whoever did that.
type dirWatch struct {
	fd  int
	buf [16 << 10]byte
}

func newDirWatch() (*dirWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch directories: %w", err)
	}
	return &dirWatch{fd: fd}, nil
}

// watchStore is for one directory, in which new names do not matter.
func watchStore(dir string) (*dirWatch, error) {
	w, err := newDirWatch()
	if err != nil {
		return nil, err
	}
	if _, err := w.add(dir, unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// addInner watches one in which they do, and gives its number.
func (w *dirWatch) addInner(dir string) (int, error) {
	return w.add(dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO)
}

func (w *dirWatch) add(dir string, events uint32) (int, error) {
	n, err := unix.InotifyAddWatch(w.fd, dir, events|unix.IN_ONLYDIR)
	if err != nil {
		return -1, fmt.Errorf("watch directory '%s': %w", dir, err)
	}
	return n, nil
}

// remove ends the watch of one directory.
func (w *dirWatch) remove(number int) {
	// One that is deleted is watched no more, which is no matter.
	unix.InotifyRmWatch(w.fd, uint32(number))
}

// changes calls changed for each name since the last time, with the number of its directory. It is false if there is
// more that it cannot tell.
func (w *dirWatch) changes(changed func(dir int, name string)) bool {
	known := true
	for {
		n, err := unix.Read(w.fd, w.buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return known
		case err != nil:
			return false
		}
		known = events(w.buf[:n], changed) && known
	}
}

// events reads struct inotify_event of linux/inotify.h, one after the other. It is false if there is anything but names
// and the ends of watches.
func events(data []byte, changed func(dir int, name string)) bool {
	known := true
	for len(data) >= unix.SizeofInotifyEvent {
		dir, mask := int32(binary.NativeEndian.Uint32(data)), binary.NativeEndian.Uint32(data[4:])
		length := binary.NativeEndian.Uint32(data[12:])
		data = data[unix.SizeofInotifyEvent:]
		if uint64(length) > uint64(len(data)) {
			return false
		}
		name, _, _ := bytes.Cut(data[:length], []byte{0})
		data = data[length:]
		switch {
		case mask&(unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO) != 0:
			changed(int(dir), string(name))
		case mask&unix.IN_IGNORED == 0 || mask&(unix.IN_UNMOUNT|unix.IN_Q_OVERFLOW) != 0:
			known = false
		}
	}
	return known && len(data) == 0
}

func (w *dirWatch) close() { unix.Close(w.fd) }
