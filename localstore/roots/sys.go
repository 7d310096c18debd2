package roots

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isPermanent tells whether something is not a root that could be read, now or later. Upstream knows the first three;
// the others, which anybody can bring about by the choice of a link's target, make its collector fail.
//
// All else fails the search for roots and with it the collection, as upstream's: behind an I/O error (EIO) or a file
// server that lost its handle (ESTALE) may be a root that is there again tomorrow, when what it keeps alive would be gone.
func isPermanent(err error) bool {
	for _, errno := range []unix.Errno{
		unix.EACCES, unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EINVAL,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// maxLink is longer than any link that the kernel makes.
const maxLink = 4096 + 1

func readlinkat(dir int, name string) (string, error) {
	var buf [maxLink]byte
	n, err := readlinkInto(dir, name, buf[:])
	return string(buf[:max(n, 0)]), err
}

func readlinkInto(dir int, name string, buf []byte) (int, error) {
	for {
		n, err := unix.Readlinkat(dir, name, buf)
		if err == nil && n == len(buf) {
			err = unix.ENAMETOOLONG
		}
		if err != unix.EINTR {
			return n, err
		}
	}
}
