package installation

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// scarce is how many bytes are hardly any.
const scarce = 64 << 20

// space tells whether the mount is read-only, and whether it is full.
func space(path string) (readOnly, full bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, false
	}
	return st.Flags&unix.ST_RDONLY != 0, st.Bavail*uint64(st.Bsize) < scarce
}

// tryNamespaces has a process start in a namespace of each kind that isolates builds. Who is not root needs one of
// users for all others.
func tryNamespaces(ctx context.Context) []Namespace {
	var kinds []Namespace
	for _, kind := range []struct {
		name string
		flag uintptr
	}{
		{"user", unix.CLONE_NEWUSER}, {"mount", unix.CLONE_NEWNS}, {"process", unix.CLONE_NEWPID},
		{"network", unix.CLONE_NEWNET}, {"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS},
	} {
		kinds = append(kinds, Namespace{kind.name, tryNamespace(ctx, kind.flag)})
	}
	return kinds
}

func tryNamespace(ctx context.Context, flag uintptr) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "--version")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag}
	if flag == unix.CLONE_NEWUSER || os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	err := cmd.Run()
	var errno syscall.Errno
	switch {
	case err == nil:
		return ""
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

// peer gives the process that listens at a socket.
func peer(path string) (int, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}
