package build

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// leave leaves what it can, and somebody who holds on to it. What would make others not get the same things again, such as
// a packet through the network or another mode of a directory, it does not do.
func leave() {
	signal.Ignore(unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGPIPE)
	said := func(name string, err error) {
		if err != nil {
			fmt.Printf("tried: %s: %v\n", name, err)
		} else {
			fmt.Printf("left: %s\n", name)
		}
	}
	call := func(name string, number uintptr, args ...uintptr) {
		all := append(args, 0, 0, 0, 0, 0, 0)
		_, _, errno := unix.Syscall6(number, all[0], all[1], all[2], all[3], all[4], all[5])
		said(name, errnoOrNil(errno))
	}
	leaveNamespace(said)
	call("shared memory", unix.SYS_SHMGET, heirKey, 4096, unix.IPC_CREAT|0o666)
	call("messages", unix.SYS_MSGGET, heirKey, unix.IPC_CREAT|0o666)
	call("semaphores", unix.SYS_SEMGET, heirKey, 4, unix.IPC_CREAT|0o666)
	_, errno := openQueue(unix.O_RDWR | unix.O_CREAT)
	said("queue", errnoOrNil(errno))
	said("file in shared memory", os.WriteFile("/dev/shm/heir", []byte("left"), 0o666))
	said("file in /tmp", os.WriteFile("/tmp/heir", []byte("left"), 0o666))
	said("file in the store", os.WriteFile(os.Getenv("NIX_STORE")+"/heir", []byte("left"), 0o666))
	_, err := unix.Open("/dev/ptmx", unix.O_RDWR, 0)
	said("terminal", err)
	leaveSockets(said)
	leaveMarks(said)
	for name, text := range map[string]string{"/proc/sys/net/ipv4/ip_local_port_range": "1 2", "/proc/sys/net/core/somaxconn": "1",
		"/proc/sys/user/max_inotify_instances": "0",
		"/proc/sys/user/max_user_namespaces":   "0", "/proc/sys/kernel/hostname": "heir", "/proc/sys/kernel/sem": "1 1 1 1", "/proc/sys/kernel/shmmax": "1", "/proc/sys/fs/mqueue/msg_max": "1"} {
		said(name, os.WriteFile(name, []byte(text), 0))
	}
	said("host name", unix.Sethostname([]byte("heir")))
	_, err = unix.AddKey("user", "heir", []byte("left"), unix.KEY_SPEC_USER_KEYRING)
	said("key", err)
	leaveAttributesOfProcess(said, call)
	// It holds all of that, and stays as long as it can.
	holder := exec.Command("/bin/sh", "-c", "trap '' TERM HUP INT; while :; do test; done")
	holder.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said("process", holder.Start())
}

// leaveAttributesOfProcess changes what a process hands on to its children.
func leaveAttributesOfProcess(said func(string, error), call func(string, uintptr, ...uintptr)) {
	for _, limit := range []int{unix.RLIMIT_NOFILE, unix.RLIMIT_NPROC, unix.RLIMIT_MEMLOCK, unix.RLIMIT_MSGQUEUE, unix.RLIMIT_SIGPENDING} {
		said(fmt.Sprint("limit ", limit), unix.Setrlimit(limit, &unix.Rlimit{Cur: 200, Max: 200}))
	}
	said("nice", unix.Setpriority(unix.PRIO_PROCESS, 0, 10))
	said("nice of the user", unix.Setpriority(unix.PRIO_USER, 0, 10))
	said("scheduling", unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0))
	said("affinity", unix.SchedSetaffinity(0, &unix.CPUSet{1}))
	call("I/O priority", unix.SYS_IOPRIO_SET, 1, 0, 3<<13)
	call("personality", unix.SYS_PERSONALITY, 8)
	for name, text := range map[string]string{"oom_score_adj": "1000", "coredump_filter": "0", "timerslack_ns": "1000000", "autogroup": "10"} {
		said(name, os.WriteFile("/proc/self/"+name, []byte(text), 0))
	}
	for option, value := range map[int]uintptr{unix.PR_SET_DUMPABLE: 0, unix.PR_SET_TIMERSLACK: 1e9, unix.PR_SET_CHILD_SUBREAPER: 1, unix.PR_SET_THP_DISABLE: 1} {
		said(fmt.Sprint("prctl ", option), unix.Prctl(option, value, 0, 0, 0))
	}
	unix.Umask(0o777)
	defer unix.Umask(0o022)
}

// leaveSockets binds names and ports, and sends where there is no way to: nothing of that is a packet.
func leaveSockets(said func(string, error)) {
	inherit := func(fd int, err error) int {
		if err == nil {
			unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
		}
		return fd
	}
	fd := inherit(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0))
	said("abstract name", unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + os.Getenv("HEIR")}))
	fd = inherit(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0))
	said("listening abstract name", errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + os.Getenv("HEIR") + "-listens"}), unix.Listen(fd, 5)))
	fd = inherit(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0))
	port, err := strconv.Atoi(os.Getenv("PORT"))
	said("port", errors.Join(err, unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 5)))
	if os.Getenv("NETWORK") != "" {
		leaveInNetwork(said, port, inherit)
		return
	}
	if os.Getenv("SEND") == "" {
		return
	}
	for range 7 {
		udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			break
		}
		unix.Sendto(udp, []byte("x"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 1}})
		unix.Close(udp)
		tcp, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			break
		}
		unix.Connect(tcp, &unix.SockaddrInet6{Port: 9, Addr: [16]byte{0x20, 1, 0xd, 0xb8, 15: 1}})
		unix.Close(tcp)
	}
	said("packets that go nowhere", nil)
}

// leaveInNetwork leaves connections and members of groups in the machine's network, and tries to change that.
func leaveInNetwork(said func(string, error), port int, inherit func(int, error) int) {
	here := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	fd := inherit(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0))
	err := unix.Connect(fd, here)
	if err == nil {
		_, err = unix.Write(fd, []byte("nobody reads this"))
	}
	said("connection", err)
	fd = inherit(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0))
	said("port of datagrams", errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), unix.Bind(fd, here)))
	said("datagram", unix.Sendto(fd, []byte("nobody reads this"), 0, here))
	said("member of a group", unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: [4]byte{239, 1, 2, 3}, Ifindex: 1}))
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err == nil { // on its way to itself, which nobody but the kernel's collector ends
		err = unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(pair[0], pair[1]), nil, 0)
	}
	said("descriptors under way", err)
	said("machine's raw packets", created(unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)))
	said("machine's packets of a device", created(unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)))
	down, err := unix.NewIfreq("lo")
	if err == nil {
		down.SetUint16(0)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, down)
	}
	said("machine's loopback down", err)
	address, err := unix.NewIfreq("lo")
	if err == nil {
		err = errors.Join(address.SetInet4Addr([]byte{127, 0, 0, 77}), unix.IoctlIfreq(fd, unix.SIOCSIFADDR, address))
	}
	said("machine's address", err)
	said("machine's network entered", enterNetworkOf(1))
	said("machine's tunnel", created(unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)))
	for name, text := range map[string]string{"ipv4/ip_forward": "1", "ipv4/ip_unprivileged_port_start": "0", "ipv4/ping_group_range": "0 0",
		"ipv4/conf/lo/route_localnet": "1", "ipv4/conf/all/accept_redirects": "1", "ipv6/conf/all/disable_ipv6": "1", "core/bpf_jit_enable": "0"} {
		said("machine's setting "+name, os.WriteFile("/proc/sys/net/"+name, []byte(text), 0))
	}
}

func created(fd int, err error) error {
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// enterNetworkOf takes the network namespace of a process, over which one has to have power.
func enterNetworkOf(pid int) error {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET)
}

// leaveMarks watches and locks what the next builder will have, too.
func leaveMarks(said func(string, error)) {
	watch, err := unix.InotifyInit()
	said("watches", err)
	for _, dir := range []string{"/", "/tmp", os.Getenv("NIX_STORE"), "."} {
		_, err := unix.InotifyAddWatch(watch, dir, unix.IN_ALL_EVENTS)
		said("watch of "+filepath.Base(dir), err)
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == nil {
			err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		}
		said("lock of "+filepath.Base(dir), err)
	}
	fan, err := unix.FanotifyInit(unix.FAN_REPORT_FID, 0)
	if err == nil {
		err = unix.FanotifyMark(fan, unix.FAN_MARK_ADD, unix.FAN_CREATE|unix.FAN_ONDIR, unix.AT_FDCWD, "/tmp")
	}
	said("mark of /tmp", err)
	_, err = unix.MemfdCreate("heir", 0)
	said("file in memory", err)
}

// leaveNamespace leaves somebody in namespaces of its own.
func leaveNamespace(said func(string, error)) {
	cmd := exec.Command("/bin/sh", "-c", "trap '' TERM HUP INT; while :; do test; done")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true,
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	said("namespace", cmd.Start())
}
