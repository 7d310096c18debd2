package build

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// hostileAlone is hostile for a builder that can meet nobody, so that what it had is used again: it sees the program, what
// that needs to be executed, and no directory.
func (w *world) hostileAlone() {
	w.Helper()
	w.alone()
	exe, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	shown := map[string]string{"/hostile": exe}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		w.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if fields := strings.Fields(line); len(fields) == 6 && strings.Contains(filepath.Base(fields[5]), ".so") {
			shown[fields[5]] = fields[5]
		}
	}
	program, err := elf.Open(exe)
	if err != nil {
		w.Fatal(err)
	}
	defer program.Close()
	if s := program.Section(".interp"); s != nil {
		name, err := s.Data()
		if err != nil {
			w.Fatal(err)
		}
		loader := string(bytes.TrimRight(name, "\x00"))
		if shown[loader], err = filepath.EvalSymlinks(loader); err != nil {
			w.Fatal(err)
		}
	}
	w.set(func(s *settings.Settings) {
		s.FilterSyscalls = true
		for target, source := range shown {
			s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: target, Source: source})
		}
	})
}

// heirKinds are builders that may come after another: what they may say, and what they share with others.
var heirKinds = map[string]heirKind{
	// One that has nobody else in its network.
	"alone": {play: func(w *world, name, script string) string {
		return w.read(w.mustBuild(w.drv(name, script+"; cp /tmp/said $out")))
	}, keeps: 1, things: 300},
	// One of a fixed output, which is in the machine's network. It cannot choose its output, so its log tells.
	"network": {play: func(w *world, name, script string) string {
		said := len(w.log.lines())
		w.mustBuild(w.drv(name, "export NETWORK=1; "+script+"; cat /tmp/said; echo > $out", fixed(storepath.MethodFlat, "\n")))
		return strings.Join(w.log.lines()[said:], "\n") + "\n"
	}, things: 300},
}

type heirKind struct {
	play   func(w *world, name, script string) string
	keeps  int // directories for the next builder
	things int // that are known of its world, at least
}

// TestHostileHeir has one builder leave all it can for the next, which is the same user, gets the same user and network
// namespaces and the same directories, and must find its world as the one before both found it.
func TestHostileHeir(t *testing.T) {
	test := func(t *testing.T, w *world, leaver, heir string) {
		w.hostileAlone()
		facts := "HEIR=" + fmt.Sprintf("heir-%d", os.Getpid()) + " PORT=" + freePort(t)
		if os.Geteuid() == 0 {
			facts += " SEND=1" // only a privileged daemon sees the counters of a network
		}
		play := func(kind, role, name string) string {
			t.Helper()
			said := heirKinds[kind].play(w, name, "export "+facts+" "+hostileEnv+"='"+role+"'; /hostile > /tmp/said 2>&1 || echo exit $? >> /tmp/said")
			if idle := w.idleChroots(); len(idle) != heirKinds[kind].keeps {
				t.Errorf("%s: directories %q wait for the next, want %d", name, idle, heirKinds[kind].keeps)
			}
			return said
		}
		first, _ := identity(play(heir, "describe", "first")) // makes what is used again
		second, before := identity(play(heir, "describe", "before"))
		if second != first {
			t.Errorf("the second builder has other namespaces (%s) than the first (%s)", second, first)
		}
		left := play(leaver, "leave", "leaver")
		t.Logf("left:\n%s", left)
		if n := strings.Count(left, "left: "); n < 25 {
			t.Errorf("only %d things were left:\n%s", n, left)
		}
		if strings.Contains(left, "left: machine's ") {
			t.Errorf("it changed the machine:\n%s", left)
		}
		_, after := identity(play(heir, "describe", "after"))
		if n := strings.Count(before, "\n"); n < heirKinds[heir].things {
			t.Errorf("only %d things are known of the world:\n%s", n, before)
		}
		if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")); diff != "" {
			t.Errorf("the world of the next builder (-before +after)\n%s", diff)
		}
		w.nothingLeft()
	}
	for _, pair := range []struct{ leaver, heir string }{{"alone", "alone"}, {"network", "network"}, {"network", "alone"}, {"alone", "network"}} {
		name := pair.leaver + " to " + pair.heir
		t.Run("own user "+name, func(t *testing.T) { test(t, newWorld(t), pair.leaver, pair.heir) })
		t.Run("build user "+name, func(t *testing.T) { test(t, newUserWorld(t, "one"), pair.leaver, pair.heir) })
	}
}

// freePort is a port of this machine's loopback that nobody has.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// identity cuts off the first line of a description, which tells of the namespaces.
func identity(description string) (namespaces, rest string) {
	namespaces, rest, _ = strings.Cut(description, "\n")
	return namespaces, rest
}

// describeWorld prints what a builder can find out about its world and itself, but for what has to differ.
func describeWorld() {
	network, _ := os.Readlink("/proc/self/ns/net")
	user, _ := os.Readlink("/proc/self/ns/user")
	fmt.Println(network, user)
	say := func(name string, value any) { fmt.Printf("%s: %v\n", name, value) }
	for limit := range 16 {
		var l unix.Rlimit
		say(fmt.Sprint("limit ", limit), errors.Join(unix.Prlimit(0, limit, nil, &l)))
		say(fmt.Sprint("limit ", limit), l)
	}
	for _, option := range []int{unix.PR_GET_DUMPABLE, unix.PR_GET_KEEPCAPS, unix.PR_GET_TIMERSLACK, unix.PR_GET_NO_NEW_PRIVS,
		unix.PR_GET_SECUREBITS, unix.PR_GET_THP_DISABLE, unix.PR_MCE_KILL_GET, unix.PR_GET_SECCOMP} {
		value, err := unix.PrctlRetInt(option, 0, 0, 0, 0)
		say(fmt.Sprint("prctl ", option), fmt.Sprint(value, err))
	}
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	say("nice", fmt.Sprint(nice, err))
	scheduling, err := unix.SchedGetAttr(0, 0)
	say("scheduling", fmt.Sprint(scheduling.Policy, scheduling.Nice, scheduling.Priority, err))
	io, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0)
	say("I/O priority", fmt.Sprint(io, errno))
	for _, name := range []string{"oom_score_adj", "coredump_filter", "personality", "loginuid", "setgroups", "uid_map", "gid_map", "cgroup", "limits"} {
		sayFile("/proc/self/" + name)
	}
	describeStatus()
	describeMounts()
	describeNetwork()
	for _, name := range []string{"shm", "msg", "sem"} {
		sayFile("/proc/sysvipc/" + name)
	}
	for _, dir := range []string{"net", "user", "fs/mqueue"} {
		filepath.WalkDir("/proc/sys/"+dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && !ofTheMoment[filepath.Base(name)] {
				sayFile(name)
			}
			return nil
		})
	}
	files, err := filepath.Glob("/proc/sys/kernel/*")
	for _, name := range files {
		switch base := filepath.Base(name); {
		case strings.HasPrefix(base, "shm"), strings.HasPrefix(base, "msg"), strings.HasPrefix(base, "sem"), base == "hostname", base == "domainname":
			sayFile(name)
		}
	}
	say("glob", err)
	for _, dir := range []string{"/", "/tmp", "/dev", "/dev/shm", "/dev/pts", "/etc", os.Getenv("NIX_STORE"), "."} {
		describeDir(dir)
	}
	describeNames()
}

// ofTheMoment are facts of a network in which others are, too.
var ofTheMoment = map[string]bool{"nf_conntrack_count": true}

// describeNetwork says what has become of the network: all that is counted, or what is this builder's of one that it
// shares with the whole machine.
func describeNetwork() {
	if os.Getenv("NETWORK") != "" {
		describeSharedNetwork()
		return
	}
	for _, name := range []string{"arp", "dev", "dev_mcast", "icmp", "if_inet6", "igmp6", "netstat", "packet", "raw", "route", "snmp", "snmp6", "tcp", "tcp6", "udp", "udp6"} {
		sayFile("/proc/net/" + name)
	}
	names, err := os.ReadFile("/proc/net/unix")
	fmt.Println("unix sockets:", bytes.Count(names, []byte("\n")), err)
}

func describeSharedNetwork() {
	names, err := os.ReadFile("/proc/net/unix")
	fmt.Println("unix sockets:", bytes.Count(names, []byte("@"+os.Getenv("HEIR"))), err)
	port, err := strconv.ParseUint(os.Getenv("PORT"), 10, 16)
	fmt.Println("port:", err)
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6"} {
		text, err := os.ReadFile("/proc/net/" + name)
		// The kernel itself keeps connections for a while that were closed (state 06).
		bound := regexp.MustCompile(fmt.Sprintf(` [0-9A-F]+:%04X [0-9A-F]+:[0-9A-F]+ (0[^6]|[^0].) `, port))
		fmt.Println(name, len(bound.FindAll(text, -1)), err)
	}
	loopback, err := net.InterfaceByName("lo")
	fmt.Println("loopback:", err)
	if err == nil {
		addresses, err := loopback.Addrs()
		groups, err2 := loopback.MulticastAddrs()
		fmt.Println(loopback.Flags, loopback.MTU, addresses, err, groups, err2)
	}
	// A connection goes where it should.
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		fmt.Println("listen:", err)
		return
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	fmt.Println("connect:", err)
	if err == nil {
		c.(*net.TCPConn).SetLinger(0) // nothing stays of it
		c.Close()
	}
}

// describeStatus says what is not of the moment.
func describeStatus() {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "Umask", "TracerPid", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
			"Seccomp_filters", "Cpus_allowed", "Mems_allowed":
			fmt.Print(line)
		}
	}
	autogroup, err := os.ReadFile("/proc/self/autogroup")
	_, nice, _ := strings.Cut(string(autogroup), " ")
	fmt.Println("autogroup:", nice, err)
}

// describeMounts says where what is mounted, and how.
func describeMounts() {
	text, err := os.ReadFile("/proc/self/mountinfo")
	fmt.Println("mounts:", err)
	// The numbers of the mounts and of the file systems, and where in them what is mounted lies.
	numbers := regexp.MustCompile(`^\d+ \d+ \d+:\d+ \S+ `)
	for line := range strings.Lines(string(text)) {
		fmt.Print(numbers.ReplaceAllString(line, ""))
	}
}

func describeDir(dir string) {
	entries, err := os.ReadDir(dir)
	fmt.Println(filepath.Base(dir), err)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			fmt.Println(e.Name(), err)
			continue
		}
		st := info.Sys().(*syscall.Stat_t)
		if e.Name() == "proc" {
			st.Nlink = 0 // as many as there are processes
		}
		fmt.Println(e.Name(), info.Mode(), st.Uid, st.Gid, st.Nlink)
		// What is said goes to a file there.
		if info.Mode().IsRegular() && e.Name() != "said" && info.Size() < 1<<20 {
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			fmt.Printf("%x %v\n", sha256.Sum256(text), err)
		}
	}
	// Nobody holds a lock on it.
	if fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		fmt.Println("lock:", unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
		unix.Close(fd)
	}
}

// describeNames looks for what has been left under known names.
func describeNames() {
	_, err := unix.SysvShmGet(heirKey, 0, 0)
	fmt.Println("shared memory:", err)
	_, _, errno := unix.Syscall(unix.SYS_MSGGET, heirKey, 0, 0)
	fmt.Println("messages:", errno)
	_, _, errno = unix.Syscall(unix.SYS_SEMGET, heirKey, 0, 0)
	fmt.Println("semaphores:", errno)
	_, errno = openQueue(unix.O_RDONLY)
	fmt.Println("queue:", errno)
	for _, name := range []string{"@" + os.Getenv("HEIR"), "@" + os.Getenv("HEIR") + "-listens"} {
		l, err := net.Listen("unix", name)
		fmt.Println("abstract name:", err)
		if err == nil {
			l.Close()
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	fmt.Println("port:", err)
	if err == nil {
		l.Close()
	}
	for _, ring := range []int{unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_PROCESS_KEYRING} {
		_, err := unix.KeyctlSearch(ring, "user", "heir", 0)
		fmt.Println("key:", err)
	}
}

func sayFile(name string) {
	text, err := os.ReadFile(name)
	if err, ok := errors.AsType[*fs.PathError](err); ok {
		fmt.Printf("%s: %v\n", name, err.Err)
		return
	}
	fmt.Printf("%s: %s\n", name, bytes.TrimRight(text, "\n"))
}

const heirKey = 0x4e697848

// openQueue opens a message queue of a name that both know.
func openQueue(flags int) (int, syscall.Errno) {
	name := []byte("heir\x00")
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), uintptr(flags), 0o666, 0, 0, 0)
	return int(fd), errno
}
