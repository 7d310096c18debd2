package build

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hostileEnv makes the test binary play a hostile builder instead of running tests.
const hostileEnv = "HOSTILE_BUILDER"

func TestMain(m *testing.M) {
	switch os.Getenv(hostileEnv) {
	case "":
		os.Exit(m.Run())
	case "attack":
		attack(outside())
	case "attack from a namespace":
		attackFromNamespace()
	case "nested":
		attackNested()
	case "keyrings":
		attack(keyrings())
	case "describe":
		describeWorld()
	case "leave":
		leave()
	case "attributes":
		leaveAttributes(os.Args[1:])
	case "pass":
		if err := pass(os.Getenv("SOCKET"), os.Args[1:]); err != nil {
			fmt.Println("pass descriptors:", err)
			os.Exit(1)
		}
	}
}

// escape is one thing that a builder tries. No error is what must not be.
type escape struct {
	name string
	try  func() error
}

// attack tries everything and reports how it went.
func attack(list []escape) {
	for _, e := range list {
		if err := e.try(); err != nil {
			fmt.Printf("tried: %s: %v\n", e.name, err)
		} else {
			fmt.Printf("ESCAPED: %s\n", e.name)
		}
	}
}

var errStopped = errors.New("stopped")

// unless makes a condition an error.
func unless(stopped bool) error {
	if stopped {
		return errStopped
	}
	return nil
}

// outside are attempts to reach or change what is not the builder's.
func outside() []escape {
	list := reads()
	list = append(list, writes(os.Getenv("INPUT"))...)
	list = append(list, processes()...)
	list = append(list, devices()...)
	list = append(list, kernel()...)
	list = append(list, setIDs()...)
	if os.Getenv("OWNER") != "" {
		return list
	}
	// What would be the end of the world for those who may.
	return append(list, escape{"unmount", func() error { return unix.Unmount("/proc", unix.MNT_DETACH) }},
		escape{"pivot", func() error { return unix.PivotRoot("/tmp", "/tmp") }})
}

func open(name string, flags int) error {
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func reads() []escape {
	victim := os.Getenv("VICTIM")
	list := []escape{
		{"read a path outside of the closure", func() error { return open(os.Getenv("OTHER"), unix.O_RDONLY) }},
		{"see it", func() error { return unix.Lstat(os.Getenv("OTHER"), new(unix.Stat_t)) }},
		{"read a file of the host", func() error { return open(victim, unix.O_RDONLY) }},
		{"see the database", func() error { return unix.Lstat(os.Getenv("STATE"), new(unix.Stat_t)) }},
		{"see the directory beside the derivation", func() error { return unix.Lstat(os.Getenv("DRV")+".chroot", new(unix.Stat_t)) }},
		{"open by handle", openByHandle},
		{"open the root of any process", func() error {
			roots, _ := filepath.Glob("/proc/[0-9]*/root")
			for _, root := range append(roots, "/proc/self/root", "/proc/thread-self/root") {
				for _, up := range []string{"", "/..", "/../../.."} {
					if open(root+up+victim, unix.O_RDONLY) == nil {
						return nil
					}
				}
			}
			return errStopped
		}},
	}
	for _, start := range []string{".", "/tmp", os.Getenv("NIX_STORE"), "/dev", "/proc", os.Getenv("INPUT")} {
		list = append(list, escape{"go up from " + start, func() error { return goUp(start, victim) }})
	}
	return list
}

// goUp looks for the host above a directory.
func goUp(start, victim string) error {
	fd, err := unix.Open(start, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("no way to begin: %w", err)
	}
	defer func() { unix.Close(fd) }()
	for range 40 {
		if unix.Faccessat(fd, strings.TrimPrefix(victim, "/"), unix.F_OK, 0) == nil {
			return nil
		}
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		unix.Close(fd)
		fd = up
	}
	return errStopped
}

// openByHandle has a file's handle from somebody outside.
func openByHandle() error {
	kind, text, _ := strings.Cut(os.Getenv("HANDLE"), ":")
	n, _ := strconv.Atoi(kind)
	handle, err := hex.DecodeString(text)
	if err != nil || len(handle) == 0 {
		return fmt.Errorf("no handle: %v", err)
	}
	for _, mount := range []string{os.Getenv("NIX_STORE"), os.Getenv("INPUT"), "/tmp", "."} {
		dir, err := unix.Open(mount, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		fd, err := unix.OpenByHandleAt(dir, unix.NewFileHandle(int32(n), handle), unix.O_RDONLY)
		unix.Close(dir)
		if err == nil {
			unix.Close(fd)
			return nil
		}
	}
	return errStopped
}

// writes are changes of an input: a directory with a file in it.
func writes(input string) []escape {
	file, store := input+"/file", filepath.Dir(input)
	return []escape{
		{"write an input", func() error { return open(file, unix.O_WRONLY) }},
		{"truncate an input", func() error { return unix.Truncate(file, 0) }},
		{"add to an input", func() error { return open(input+"/new", unix.O_WRONLY|unix.O_CREAT) }},
		{"chmod an input", func() error { return unix.Chmod(input, 0o777) }},
		{"chmod a file of an input", func() error { return unix.Chmod(file, 0o777) }},
		{"chmod through a descriptor", func() error {
			fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("no way to begin: %w", err)
			}
			defer unix.Close(fd)
			return unix.Fchmod(fd, 0o777)
		}},
		{"chown an input", func() error { return unix.Lchown(file, os.Getuid(), os.Getgid()) }},
		{"set times of an input", func() error { return unix.Utimes(file, []unix.Timeval{{Sec: 7}, {Sec: 7}}) }},
		{"rename a file of an input", func() error { return unix.Rename(file, input+"/other") }},
		{"remove a file of an input", func() error { return unix.Unlink(file) }},
		{"link to an input", func() error { return unix.Link(file, store+"/linked") }},
		{"rename an input", func() error { return unix.Rename(input, store+"/renamed") }},
		{"remove an input", func() error { return unix.Rmdir(input) }},
		{"take an attribute from an input", func() error { return unix.Removexattr(file, "user.mark") }},
		{"open it through /proc for writing", func() error {
			fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("no way to begin: %w", err)
			}
			defer unix.Close(fd)
			return open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY)
		}},
		{"change attributes of the file's inode", func() error {
			fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("no way to begin: %w", err)
			}
			defer unix.Close(fd)
			const setFlags, noDump = 0x40086602, 0x40 // FS_IOC_SETFLAGS of linux/fs.h
			return unix.IoctlSetPointerInt(fd, setFlags, noDump)
		}},
	}
}

func processes() []escape {
	pid, _ := strconv.Atoi(os.Getenv("DAEMON"))
	return []escape{
		{"signal the daemon", func() error { return unix.Kill(pid, 0) }},
		{"see the daemon", func() error { return unix.Lstat("/proc/"+strconv.Itoa(pid), new(unix.Stat_t)) }},
		{"trace the daemon", func() error { return unix.PtraceAttach(pid) }},
		{"read the daemon's memory", func() error {
			b := make([]byte, 8)
			_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 8}}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
			return err
		}},
		{"limit the daemon", func() error { return unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, new(unix.Rlimit)) }},
		{"pin the daemon", func() error { return unix.SchedSetaffinity(pid, &unix.CPUSet{1}) }},
		{"find any process of the host", func() error {
			first, err := os.ReadFile("/proc/1/environ")
			if err == nil && !bytes.Contains(first, []byte("NIX_BUILD_TOP=")) {
				return nil
			}
			all, _ := filepath.Glob("/proc/[0-9]*")
			return unless(len(all) < 20)
		}},
		{"find the host's shared memory", func() error {
			key, _ := strconv.Atoi(os.Getenv("SHM"))
			_, err := unix.SysvShmGet(key, 0, 0)
			return err
		}},
		{"connect to an abstract socket", func() error { return connect("unix", "@"+os.Getenv("ABSTRACT")) }},
		{"send to an abstract socket", func() error { return connect("unixgram", "@"+os.Getenv("ABSTRACT")+"-datagrams") }},
		{"open the terminal of the session", func() error { return open("/dev/tty", unix.O_RDWR) }},
		{"type on somebody's terminal", func() error {
			// Ours is the one that our output goes to, where nobody reads what is typed.
			c := byte('x')
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
			return errnoOrNil(errno)
		}},
	}
}

func errnoOrNil(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

func connect(network, name string) error {
	c, err := net.Dial(network, name)
	if err == nil {
		c.Close()
	}
	return err
}

func devices() []escape {
	node := func(mode uint32, major, minor uint32) func() error {
		return func() error {
			defer os.Remove("node")
			return unix.Mknod("node", mode|0o666, int(unix.Mkdev(major, minor)))
		}
	}
	return []escape{
		{"make the memory's device", node(unix.S_IFCHR, 1, 1)},
		{"make a disk's device", node(unix.S_IFBLK, 8, 0)},
		{"open the memory", func() error { return open("/dev/mem", unix.O_RDONLY) }},
		{"chmod a device of the host", func() error { return unix.Chmod("/dev/full", 0o664) }},
		{"chown a device of the host", func() error { return unix.Chown("/dev/full", os.Getuid(), os.Getgid()) }},
		{"set times of a device of the host", func() error { return unix.Utimes("/dev/full", []unix.Timeval{{Sec: 7}, {Sec: 7}}) }},
		{"remove a device", func() error { return unix.Unlink("/dev/full") }},
	}
}

func kernel() []escape {
	list := []escape{
		{"write to the kernel through /proc", writeProc},
		{"have a sysfs", func() error { return unix.Lstat("/sys/kernel", new(unix.Stat_t)) }},
		{"mount", func() error {
			if err := os.MkdirAll("mnt", 0o700); err != nil {
				return fmt.Errorf("no way to begin: %w", err)
			}
			defer unix.Unmount("mnt", unix.MNT_DETACH)
			return unix.Mount("none", "mnt", "tmpfs", 0, "")
		}},
		{"chroot", func() error { return unix.Chroot("/") }},
		{"name the machine", func() error { return unix.Sethostname([]byte("taken")) }},
		{"set the clock", func() error { now := unix.NsecToTimeval(7e9); return unix.Settimeofday(&now) }},
		{"restart the machine", func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) }},
		{"load a module", func() error { return unix.InitModule([]byte{0}, "") }},
		{"read the kernel's log", func() error { _, err := unix.Klogctl(unix.SYSLOG_ACTION_CONSOLE_OFF, nil); return err }},
		{"raise a limit", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -5) }},
		{"become root", func() error { return unix.Setresuid(0, 0, 0) }},
		{"drop groups", func() error { return unix.Setgroups([]int{0}) }},
	}
	return append(list, keyrings()...)
}

func keyrings() []escape {
	var list []escape
	for name, ring := range map[string]int{"session": unix.KEY_SPEC_SESSION_KEYRING, "user's": unix.KEY_SPEC_USER_KEYRING, "user's session": unix.KEY_SPEC_USER_SESSION_KEYRING} {
		list = append(list,
			escape{"find the " + name + " keyring", func() error { _, err := unix.KeyctlGetKeyringID(ring, false); return err }},
			escape{"leave a key in the " + name + " keyring", func() error { _, err := unix.AddKey("user", "left", []byte("x"), ring); return err }})
	}
	return list
}

// writeProc opens for writing what it can of /proc, apart from what is of processes. What everybody may write is no
// privilege.
func writeProc() error {
	var found []string
	filepath.WalkDir("/proc", func(name string, d fs.DirEntry, err error) error {
		if base := filepath.Base(name); filepath.Dir(name) == "/proc" && strings.Trim(base, "0123456789") == "" {
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o002 != 0 {
			return nil
		}
		if open(name, unix.O_WRONLY|unix.O_NONBLOCK) == nil {
			found = append(found, name)
		}
		return nil
	})
	if len(found) == 0 {
		return errStopped
	}
	fmt.Printf("ESCAPED: can write %q\n", found)
	return nil
}

// setIDs makes files with set-id bits in each way that there is.
func setIDs() []escape {
	create := func(name string, flags int, mode uint32) {
		if fd, err := unix.Open(name, flags|unix.O_WRONLY|unix.O_CLOEXEC, mode); err == nil {
			unix.Close(fd)
		}
	}
	plainFile := func(name string) int {
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o755)
		if err != nil {
			panic(err)
		}
		return fd
	}
	ways := map[string]func(name string){
		"open":   func(name string) { create(name, unix.O_CREAT, 0o6755) },
		"creat":  func(name string) { unix.Creat(name, 0o4755) },
		"mknod":  func(name string) { unix.Mknod(name, unix.S_IFREG|0o4755, 0) },
		"chmod":  func(name string) { unix.Close(plainFile(name)); unix.Chmod(name, 0o4755) },
		"fchmod": func(name string) { fd := plainFile(name); unix.Fchmod(fd, 0o2755); unix.Close(fd) },
		"fchmodat": func(name string) {
			unix.Close(plainFile(name))
			unix.Fchmodat(unix.AT_FDCWD, name, 0o4755, 0)
		},
		"fchmodat2": func(name string) {
			unix.Close(plainFile(name))
			unix.Fchmodat(unix.AT_FDCWD, name, 0o4755, unix.AT_SYMLINK_NOFOLLOW)
		},
		"openat2": func(name string) {
			if fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0o4755}); err == nil {
				unix.Close(fd)
			}
		},
		"tmpfile": func(name string) {
			if fd, err := unix.Open(".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o4755); err == nil {
				unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
				unix.Close(fd)
			}
		},
	}
	var list []escape
	for way, do := range ways {
		list = append(list, escape{"set-id file by " + way, func() error {
			name := "set-id-" + way
			defer os.Remove(name)
			do(name)
			var st unix.Stat_t
			return unless(unix.Lstat(name, &st) != nil || st.Mode&0o6000 == 0)
		}})
	}
	return list
}

// attackFromNamespace tries again with all the privileges that one can have in a user namespace of one's own.
func attackFromNamespace() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), hostileEnv+"=nested")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		fmt.Println("tried: user namespace:", err)
	}
}

// attackNested has capabilities over its own namespaces.
func attackNested() {
	input := os.Getenv("INPUT")
	remount := func(name string, flags uintptr) error {
		return unix.Mount("none", name, "", unix.MS_REMOUNT|unix.MS_BIND|flags, "")
	}
	attack([]escape{
		{"make an input writable", func() error { return remount(input, 0) }},
		{"make an input writable, otherwise", func() error {
			return unix.MountSetattr(unix.AT_FDCWD, input, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
		}},
		{"make a device's mount writable", func() error { return remount("/dev/full", 0) }},
		{"uncover what is below an input", func() error { return unix.Unmount(input, unix.MNT_DETACH) }},
		{"uncover what is below /proc", func() error { return unix.Unmount("/proc", unix.MNT_DETACH) }},
		{"uncover what is below the root", func() error { return unix.Unmount("/", unix.MNT_DETACH) }},
		{"mount a disk", func() error { return unix.Mount("/dev/full", "/tmp", "ext4", 0, "") }},
		{"clone a mount and make it writable", func() error {
			fd, err := unix.OpenTree(unix.AT_FDCWD, input, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
		}},
		{"make a device", func() error { return unix.Mknod("node", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 1))) }},
		{"write to the kernel through /proc/sys", func() error { return open("/proc/sys/kernel/core_pattern", unix.O_WRONLY) }},
		{"trigger sysrq", func() error { return open("/proc/sysrq-trigger", unix.O_WRONLY) }},
	})
	// A new procfs shows no more than the old one does.
	os.MkdirAll("proc", 0o700)
	if err := unix.Mount("proc", "proc", "proc", 0, ""); err == nil {
		attack([]escape{
			{"write to the kernel through a new /proc", func() error { return open("proc/sys/kernel/core_pattern", unix.O_WRONLY) }},
			{"trigger sysrq through a new /proc", func() error { return open("proc/sysrq-trigger", unix.O_WRONLY) }},
		})
		unix.Unmount("proc", unix.MNT_DETACH)
	}
	attack(append(reads(), writes(input)...))
}

// leaveAttributes puts an attribute and an access control list, which lets everybody write, on each file.
func leaveAttributes(names []string) {
	// struct posix_acl_xattr_header and entries of linux/posix_acl_xattr.h: owner, group, mask and others, all of rwx.
	list := []byte{2, 0, 0, 0}
	for _, tag := range []byte{0x01, 0x04, 0x10, 0x20} {
		list = append(list, tag, 0, 7, 0, 0xff, 0xff, 0xff, 0xff)
	}
	for _, name := range names {
		if err := unix.Setxattr(name, "user.mark", []byte("x"), 0); err != nil {
			fmt.Println("attribute:", err)
			return
		}
		if err := unix.Setxattr(name, "system.posix_acl_access", list, 0); err != nil && err != unix.ENOTSUP {
			fmt.Println("access control list:", err)
			return
		}
		// An output that others can write is rejected for that alone.
		if err := unix.Chmod(name, 0o755); err != nil {
			fmt.Println("mode:", err)
			return
		}
	}
	fmt.Println("set")
}

// pass opens files and sends their descriptors to whoever listens on a socket, and waits for an answer.
func pass(socket string, names []string) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer c.Close()
	var fds []int
	for _, name := range names {
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == unix.EISDIR {
			fd, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	if _, _, err := c.WriteMsgUnix([]byte("take"), unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	if _, err = c.Read(make([]byte, 1)); err == io.EOF {
		return nil
	}
	return err
}
