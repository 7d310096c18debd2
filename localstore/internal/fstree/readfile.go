package fstree

import (
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadFile reads the regular file called name, which must not be larger than limit bytes.
func (d *Dir) ReadFile(name string, limit int64) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", d.wrap("opening file", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return "", d.wrap("getting status of", name, err)
	}
	if !isType(uint32(st.Mode), unix.S_IFREG) {
		return "", fmt.Errorf("file '%s' is not a regular file", d.join(name))
	}
	if st.Size > limit {
		return "", fmt.Errorf("file '%s' is too large", d.join(name))
	}
	text := make([]byte, st.Size)
	if _, err := io.ReadFull(fdReader{fd}, text); err != nil {
		return "", d.wrap("reading file", name, err)
	}
	// Nobody else has the bytes.
	return unsafe.String(unsafe.SliceData(text), len(text)), nil
}
