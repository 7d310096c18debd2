package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// terminal is a pseudoterminal in raw mode, so that a builder's newlines arrive as it wrote them.
type terminal struct {
	master, slave *os.File
}

// openTerminal makes one whose slave belongs to user (upstream: mode 0600, group 0); nil leaves it to the system.
func openTerminal(user *User) (*terminal, error) {
	master, err := openMaster()
	if err != nil {
		return nil, fmt.Errorf("open pseudoterminal: %w", err)
	}
	slave, err := openSlave(master)
	if err != nil {
		unix.Close(master)
		return nil, fmt.Errorf("open pseudoterminal slave: %w", err)
	}
	if err := prepare(master, slave, user); err != nil {
		unix.Close(master)
		unix.Close(slave)
		return nil, err
	}
	// The master is non-blocking by now, so os.NewFile hands it to the runtime's poller.
	return &terminal{os.NewFile(uintptr(master), "pseudoterminal"), os.NewFile(uintptr(slave), "pseudoterminal slave")}, nil
}

func prepare(master, slave int, user *User) error {
	if user != nil {
		if err := give(slave, user.UID); err != nil {
			return fmt.Errorf("give pseudoterminal to uid %d: %w", user.UID, err)
		}
	}
	if err := makeRaw(slave); err != nil {
		return fmt.Errorf("put pseudoterminal into raw mode: %w", err)
	}
	return unix.SetNonblock(master, true)
}

func give(slave int, uid uint32) error {
	if err := unix.Fchmod(slave, 0o600); err != nil {
		return err
	}
	return unix.Fchown(slave, int(uid), 0)
}

// makeRaw does what cfmakeraw(3) documents.
func makeRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, ioctlGetTermios)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, ioctlSetTermios, t)
}
