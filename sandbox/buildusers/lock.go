package buildusers

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile opens the file as upstream does and locks it exclusively, or returns nil when another process has it.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening user lock \"%s\": %w", name, err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case nil:
			return f, nil
		case unix.EINTR:
			continue
		case unix.EWOULDBLOCK:
			return nil, f.Close()
		}
		f.Close()
		return nil, fmt.Errorf("acquiring lock on \"%s\": %w", name, err)
	}
}
