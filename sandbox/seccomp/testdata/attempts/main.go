// Command attempts tries, in its working directory, every way to make a file with a set-id bit or with extended
// attributes, and prints for each way "name: " and "ok" or the error's number. The package's test builds it for each
// ABI of the machine and runs it with and without the filter.
package main

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const mode = 0o4755

func main() {
	fd, err := syscall.Open("plain", syscall.O_CREAT|syscall.O_RDWR, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cwd := unix.AT_FDCWD
	at := uintptr(cwd)
	plain := str("plain")

	try("chmod", unix.SYS_CHMOD, plain, mode)
	try("fchmod", unix.SYS_FCHMOD, uintptr(fd), mode)
	try("fchmodat", unix.SYS_FCHMODAT, at, plain, mode)
	try("fchmodat2", unix.SYS_FCHMODAT2, at, plain, mode, 0)
	try("open", unix.SYS_OPEN, str("open"), unix.O_CREAT|unix.O_WRONLY, mode)
	try("openat", unix.SYS_OPENAT, at, str("openat"), unix.O_CREAT|unix.O_WRONLY, 0o2755)
	try("openat O_TMPFILE", unix.SYS_OPENAT, at, str("."), unix.O_TMPFILE|unix.O_WRONLY, mode)
	try("creat", unix.SYS_CREAT, str("creat"), mode)
	try("mknod", unix.SYS_MKNOD, str("mknod"), unix.S_IFREG|mode, 0)
	try("mknodat", unix.SYS_MKNODAT, at, str("mknodat"), unix.S_IFREG|0o2755, 0)
	how := unix.OpenHow{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: mode}
	try("openat2", unix.SYS_OPENAT2, at, str("openat2"), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how))
	var params [120]byte // struct io_uring_params
	try("io_uring_setup", unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)))

	name, value := str("user.test"), str("v")
	var buf [64]byte
	to := uintptr(unsafe.Pointer(&buf))
	try("setxattr", unix.SYS_SETXATTR, plain, name, value, 1, 0)
	try("fsetxattr", unix.SYS_FSETXATTR, uintptr(fd), name, value, 1, 0)
	args := struct {
		value       uint64
		size, flags uint32
	}{uint64(value), 1, 0}
	try("setxattrat", unix.SYS_SETXATTRAT, at, plain, 0, name, uintptr(unsafe.Pointer(&args)), 16)
	try("getxattr", unix.SYS_GETXATTR, plain, name, to, 64)
	try("listxattr", unix.SYS_LISTXATTR, plain, to, 64)
	try("llistxattr", unix.SYS_LLISTXATTR, plain, to, 64)
	try("flistxattr", unix.SYS_FLISTXATTR, uintptr(fd), to, 64)
	try("listxattrat", unix.SYS_LISTXATTRAT, at, plain, 0, to, 64)
	try("chmod plain", unix.SYS_CHMOD, plain, 0o755)
	try("open plain", unix.SYS_OPEN, str("new"), unix.O_CREAT|unix.O_WRONLY, 0o755)
	try("mkdir", unix.SYS_MKDIR, str("dir"), 0o755)
}

func str(s string) uintptr {
	p, err := syscall.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	kept = append(kept, p)
	return uintptr(unsafe.Pointer(p))
}

// kept holds on to what system calls are given the address of.
var kept []*byte

func try(name string, number uintptr, args ...uintptr) {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := syscall.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		fmt.Printf("%s: %d\n", name, int(errno))
		return
	}
	fmt.Printf("%s: ok\n", name)
}
