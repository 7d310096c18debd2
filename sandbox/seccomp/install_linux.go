package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Install puts the filter on the calling thread alone, for good; children inherit it.
// The caller has locked its goroutine to the thread, and is root or has set no-new-privileges on it.
func Install() error {
	program, err := Program(runtime.GOARCH)
	if err != nil {
		return err
	}
	return load(program)
}

// HideKeyrings is Install for [Keyrings]. Where there are no filters it does nothing, nor on a thread that may not have
// one, since it is neither root's nor without new privileges.
func HideKeyrings() error {
	program, err := Keyrings(runtime.GOARCH)
	if err == nil {
		err = load(program)
	}
	if errors.Is(err, ErrPlatform) || errors.Is(err, unix.EACCES) {
		return nil
	}
	return err
}

func load(program []bpf.RawInstruction) error {
	prog := unix.SockFprog{
		Len: uint16(len(program)),
		// bpf.RawInstruction has the layout of struct sock_filter.
		Filter: (*unix.SockFilter)(unsafe.Pointer(&program[0])),
	}
	// Without SECCOMP_FILTER_FLAG_TSYNC, so this thread alone.
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno == unix.ENOSYS || errno == unix.EINVAL {
		return ErrPlatform
	}
	if errno != 0 {
		return fmt.Errorf("unable to load seccomp BPF program: %w", errno)
	}
	return nil
}
