//go:build linux && amd64

package seccomp

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The numbers are checked against a second source where there is one.
func TestNumbersX8664(t *testing.T) {
	want := map[uint32]Check{
		unix.SYS_OPEN: CreateMode1, unix.SYS_OPENAT: CreateMode2, unix.SYS_CREAT: ModeIn1,
		unix.SYS_CHMOD: ModeIn1, unix.SYS_FCHMOD: ModeIn1, unix.SYS_FCHMODAT: ModeIn2, unix.SYS_FCHMODAT2: ModeIn2,
		unix.SYS_MKNOD: ModeIn1, unix.SYS_MKNODAT: ModeIn2,
		unix.SYS_GETXATTR: Unsupported, unix.SYS_LGETXATTR: Unsupported, unix.SYS_FGETXATTR: Unsupported,
		unix.SYS_SETXATTR: Unsupported, unix.SYS_LSETXATTR: Unsupported, unix.SYS_FSETXATTR: Unsupported,
		unix.SYS_LISTXATTR: Unsupported, unix.SYS_LLISTXATTR: Unsupported, unix.SYS_FLISTXATTR: Unsupported,
		unix.SYS_GETXATTRAT: Unsupported, unix.SYS_SETXATTRAT: Unsupported, unix.SYS_LISTXATTRAT: Unsupported,
		unix.SYS_OPENAT2: Missing,
		unix.SYS_ADD_KEY: Keyring, unix.SYS_REQUEST_KEY: Keyring, unix.SYS_KEYCTL: Keyring,
		unix.SYS_IO_URING_SETUP: Missing, unix.SYS_IO_URING_ENTER: Missing, unix.SYS_IO_URING_REGISTER: Missing,
	}
	rules := x8664Rules()
	if len(rules) != len(want) {
		t.Errorf("got %d rules, want %d", len(rules), len(want))
	}
	for _, r := range rules {
		if want[r.Number] != r.Check {
			t.Errorf("call %d: got check %d, want %d", r.Number, r.Check, want[r.Number])
		}
	}
}
