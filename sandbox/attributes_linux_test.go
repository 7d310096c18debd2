package sandbox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox"
	"nixdaemon/sandbox/sandboxtest"
)

// helperEnv makes the test binary play a builder or a daemon instead of running tests.
const helperEnv = "SANDBOX_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "":
		os.Exit(m.Run())
	case "set-id":
		helpSetID()
	case "descriptors":
		helpDescriptors()
	case "daemon":
		helpDaemon()
	}
}

// helpSetID tries every way to a set-id file or an extended attribute that needs no library, and prints the outcomes.
func helpSetID() {
	say := func(what string, err error) { fmt.Printf("%s: %v\n", what, err) }
	create := func(name string, flags int, mode uint32) error {
		fd, err := unix.Open(name, flags, mode)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	raw := func(nr uintptr, args ...uintptr) error {
		args = append(args, 0, 0, 0, 0)
		if _, _, errno := unix.Syscall6(nr, args[0], args[1], args[2], args[3], 0, 0); errno != 0 {
			return errno
		}
		return nil
	}
	say("create 0755", create("f", unix.O_CREAT|unix.O_WRONLY, 0o755))
	say("create 4755", create("f-uid", unix.O_CREAT|unix.O_WRONLY, 0o4755))
	say("create 2755", create("f-gid", unix.O_CREAT|unix.O_WRONLY, 0o2755))
	say("tmpfile 4755", create(".", unix.O_TMPFILE|unix.O_WRONLY, 0o4755))
	say("open with junk mode", create("f", unix.O_RDONLY, 0o4755))
	say("mknod 4755", unix.Mknod("n", unix.S_IFREG|0o4755, 0))
	say("mkfifo 0644", unix.Mknod("p", unix.S_IFIFO|0o644, 0))
	say("fchmodat 4755", unix.Fchmodat(unix.AT_FDCWD, "f", 0o4755, 0))
	say("fchmodat 1755", unix.Fchmodat(unix.AT_FDCWD, "f", 0o1755, 0))
	say("fchmod 2755", raw(unix.SYS_FCHMOD, openFile("f"), 0o2755))
	say("setxattr", unix.Setxattr("f", "user.x", []byte("y"), 0))
	_, err := unix.Getxattr("f", "user.x", nil)
	say("getxattr", err)
	_, err = unix.Listxattr("f", nil)
	say("listxattr", err)
}

// helpDescriptors prints every descriptor that it was given: what Go's runtime opens for itself is close-on-exec.
func helpDescriptors() {
	for fd := range 1024 {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			fmt.Printf("%d=%s\n", fd, target)
		}
	}
}

func openFile(name string) uintptr {
	fd, err := unix.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	return uintptr(fd)
}

func helper(t *testing.T, role string, u *sandbox.User) sandbox.Spec {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return sandbox.Spec{Path: exe, Args: []string{exe}, Env: []string{helperEnv + "=" + role}, Dir: sandboxtest.DirFor(t, u), User: u}
}

func TestFilterSyscalls(t *testing.T) {
	spec := helper(t, "set-id", nil)
	spec.FilterSyscalls = true
	out, _ := run(t, newLauncher(t), spec)
	want := `create 0755: <nil>
create 4755: operation not permitted
create 2755: operation not permitted
tmpfile 4755: operation not permitted
open with junk mode: <nil>
mknod 4755: operation not permitted
mkfifo 0644: <nil>
fchmodat 4755: operation not permitted
fchmodat 1755: <nil>
fchmod 2755: operation not permitted
setxattr: operation not supported
getxattr: operation not supported
listxattr: operation not supported
`
	if out != want {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
}

// The filter stays with the thread that has it: this process and unfiltered builders are free.
func TestAttributesStayOnTheirThread(t *testing.T) {
	l := newLauncher(t)
	script := "touch f; chmod 4755 f && echo changed; umask; cat /proc/self/personality"
	for _, filter := range []bool{true, false, true} {
		spec := shell(t, script)
		spec.FilterSyscalls = filter
		out, _ := run(t, l, spec)
		if got := strings.HasPrefix(out, "changed"); got == filter || !strings.HasSuffix(out, "0022\n00040000\n") {
			t.Errorf("filter %v: got %q", filter, out)
		}
	}
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(name, 0o4700); err != nil {
		t.Errorf("chmod in this process: %v", err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || !strings.Contains(string(status), "\nSeccomp:\t0\n") || !strings.Contains(string(status), "\nNoNewPrivs:\t0\n") {
		t.Errorf("this process carries a builder's attributes: %v\n%s", err, status)
	}
}

func TestAttributes(t *testing.T) {
	l := newLauncher(t)
	tests := []struct {
		name   string
		change func(*sandbox.Spec)
		script string
		want   string
	}{
		{"no new privileges", func(*sandbox.Spec) {}, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"},
		{"new privileges", func(s *sandbox.Spec) { s.AllowNewPrivileges = true }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0\n"},
		{"no filter", func(s *sandbox.Spec) { s.Keyrings = true }, "grep Seccomp: /proc/self/status", "Seccomp:\t0\n"},
		{"keyrings alone", func(*sandbox.Spec) {}, "grep Seccomp_filters: /proc/self/status; touch f && chmod 4755 f && stat -c %a f", "Seccomp_filters:\t1\n4755\n"},
		{"filter", func(s *sandbox.Spec) { s.FilterSyscalls = true }, "grep Seccomp: /proc/self/status", "Seccomp:\t2\n"},
		{"fixed addresses", func(*sandbox.Spec) {}, "cat /proc/self/personality", "00040000\n"},
		{"32-bit", func(s *sandbox.Spec) { s.Personality.Linux32 = true }, "cat /proc/self/personality", "00040008\n"},
		{"2.6", func(s *sandbox.Spec) { s.Personality.UNAME26 = true }, "uname -r | cut -c1-4", "2.6.\n"},
		// 32 to 34 are the C library's own, which programs that start tests, such as make, leave ignored.
		{"signals", func(*sandbox.Spec) { heedSignals() }, "grep -E 'Sig(Blk|Ign)' /proc/self/status | sed 's/0000000[0-3][08]0000000$/0000000000000000/'",
			"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"},
		{"session", func(*sandbox.Spec) {}, `set -- $(cat /proc/$$/stat); [ $1 = $5 ] && [ $1 = $6 ] && echo $7`, "0\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := shell(t, tt.script)
			tt.change(&spec)
			if out, _ := run(t, l, spec); out != tt.want {
				t.Errorf("got %q, want %q", out, tt.want)
			}
		})
	}
}

// heedSignals ends the ignoring of signals that nohup, or a shell that runs the tests in the background, has us begin with:
// the daemon does so, too. For the tests nothing else changes.
func heedSignals() {
	dropped := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(dropped, sig)
		}
	}
}

// A builder sees three descriptors, even if this process was given one to inherit, and its own ends of the terminal.
func TestDescriptors(t *testing.T) {
	inherited, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	out, _ := run(t, newLauncher(t), helper(t, "descriptors", nil))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 || lines[0] != "0=/dev/null" || !strings.HasPrefix(lines[1], "1=/dev/pts/") || lines[2] != "2"+lines[1][1:] {
		t.Errorf("got %q", lines)
	}
}

func TestBuildUser(t *testing.T) {
	u := sandboxtest.BuildUser(t)
	u.Groups = []uint32{u.GID + 1, u.GID + 2}
	spec := shell(t, `grep -E '^(Uid|Gid|Groups|CapEff|NoNewPrivs)' /proc/self/status; stat -c '%u %g %a' "$(readlink /proc/$$/fd/1)"; : >mine && echo wrote`)
	spec.Dir, spec.User, spec.FilterSyscalls = sandboxtest.DirFor(t, u), u, true
	out, _ := run(t, newLauncher(t), spec)
	want := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\nGid:\t%[2]d\t%[2]d\t%[2]d\t%[2]d\nGroups:\t%[3]d %[4]d \nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n%[1]d 0 600\nwrote\n", u.UID, u.GID, u.Groups[0], u.Groups[1])
	if out != want {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
}

func TestUserNeedsRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs to run as somebody other than root")
	}
	spec := shell(t, "exit 0")
	spec.User = &sandbox.User{UID: 1_899_999_999, GID: 1}
	if p, err := newLauncher(t).Start(context.Background(), spec); err == nil {
		finish(t, p)
		t.Error("started a builder as another user without being root")
	}
}

// helpDaemon starts a builder, says which process it is, and waits to be killed.
func helpDaemon() {
	var u *sandbox.User
	if n, err := strconv.Atoi(os.Getenv("SANDBOX_TEST_UID")); err == nil {
		u = &sandbox.User{UID: uint32(n), GID: uint32(n)}
	}
	l, err := sandbox.NewLauncher()
	if err != nil {
		panic(err)
	}
	p, err := l.Start(context.Background(), sandbox.Spec{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Dir: "/", User: u})
	if err != nil {
		panic(err)
	}
	fmt.Println(p.Pid())
	// Many goroutines end their threads; the launcher's must not be one of them.
	for range 50 {
		go func() { runtime.LockOSThread() }()
	}
	runtime.GC()
	fmt.Println(p.Pid())
	p.Wait()
	fmt.Println("builder ended early")
}

func TestBuilderDiesWithDaemon(t *testing.T) {
	for _, tt := range users {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), helperEnv+"=daemon")
			if u := tt.user(t); u != nil {
				cmd.Env = append(cmd.Env, fmt.Sprintf("SANDBOX_TEST_UID=%d", u.UID))
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(out)
			var first, second int
			if _, err := fmt.Fscan(r, &first, &second); err != nil || !alive(first) {
				t.Fatalf("builder %d: %v", first, err)
			}
			pidfd, err := unix.PidfdOpen(first, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(pidfd)
			cmd.Process.Kill()
			if rest, _ := io.ReadAll(r); strings.Contains(string(rest), "early") {
				t.Errorf("got %q", rest)
			}
			cmd.Wait()
			// Readable once the builder has ended.
			fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, 10_000); n != 1 {
				t.Errorf("builder %d outlives its daemon: %v", first, err)
			}
		})
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func children(t *testing.T) string {
	t.Helper()
	var all []byte
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(tasks) == 0 {
		t.Skip("needs /proc/self/task/*/children")
	}
	for _, task := range tasks {
		// A thread that has ended has no children.
		b, _ := os.ReadFile(task)
		all = append(all, b...)
	}
	return string(all)
}

func TestManyStartsLeakNothing(t *testing.T) {
	l := newLauncher(t)
	spec := sandbox.Spec{Path: "/bin/true", Args: []string{"true"}, Dir: t.TempDir(), FilterSyscalls: true}
	run(t, l, spec)
	fds, goroutines := openDescriptors(t), runtime.NumGoroutine()
	for range 500 {
		if _, res := run(t, l, spec); res.ExitCode != 0 {
			t.Fatalf("got %+v", res)
		}
	}
	for range 50 {
		bad := spec
		bad.Path = "/does/not/exist"
		if _, err := l.Start(context.Background(), bad); err == nil {
			t.Fatal("started a program that does not exist")
		}
	}
	if got := openDescriptors(t); got != fds {
		t.Errorf("descriptors: got %d, want %d", got, fds)
	}
	if got := children(t); got != "" {
		t.Errorf("children left: %s", got)
	}
	if got := runtime.NumGoroutine(); got > goroutines {
		t.Errorf("goroutines: got %d, want %d", got, goroutines)
	}
}

func TestConcurrentStarts(t *testing.T) {
	l := newLauncher(t)
	run(t, l, shell(t, "exit 0"))
	fds := openDescriptors(t)
	var wg sync.WaitGroup
	for i := range 64 {
		spec := shell(t, fmt.Sprintf("echo start %d; (sleep 0.01; echo end) & wait; exit %d", i, i%3))
		if os.Geteuid() == 0 && i%2 == 0 {
			spec.User = sandboxtest.BuildUser(t)
			spec.Dir = sandboxtest.DirFor(t, spec.User)
		}
		spec.FilterSyscalls, spec.AllowNewPrivileges = i%3 == 0, i%5 == 0 && os.Geteuid() == 0
		wg.Go(func() {
			p, err := l.Start(context.Background(), spec)
			if err != nil {
				t.Error(err)
				return
			}
			out, res := finish(t, p)
			if out != fmt.Sprintf("start %d\nend\n", i) || res.ExitCode != i%3 {
				t.Errorf("builder %d: got %q, %+v", i, out, res)
			}
		})
	}
	wg.Wait()
	if got := openDescriptors(t); got != fds {
		t.Errorf("descriptors: got %d, want %d", got, fds)
	}
	if got := children(t); got != "" {
		t.Errorf("children left: %s", got)
	}
}

func TestLauncherClose(t *testing.T) {
	l, err := sandbox.NewLauncher()
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Start(context.Background(), shell(t, "sleep 0.05; exit 2"))
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() { l.Close(); close(closed) }()
	_, res := finish(t, p)
	<-closed
	if res.ExitCode != 2 {
		t.Errorf("builder was disturbed by Close: %+v", res)
	}
	if _, err := l.Start(context.Background(), shell(t, "exit 0")); err == nil || !strings.HasSuffix(err.Error(), ": launcher is closed") {
		t.Errorf("start after close: got %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

// A program that somebody still writes is waited for, a little.
func TestBusyProgram(t *testing.T) {
	name := filepath.Join(t.TempDir(), "builder")
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	spec := sandbox.Spec{Path: name, Args: []string{name}, Dir: "/"}
	l := newLauncher(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Start(ctx, spec); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("canceled while busy: got %v", err)
	}
	started := make(chan *sandbox.Process)
	go func() {
		p, err := l.Start(context.Background(), spec)
		if err != nil {
			t.Error(err)
		}
		started <- p
	}()
	run(t, l, shell(t, "sleep 0.01"))
	f.Close()
	if p := <-started; p != nil {
		if _, res := finish(t, p); res.ExitCode != 0 {
			t.Errorf("got %+v", res)
		}
	}
}

func TestCPUTime(t *testing.T) {
	_, res := run(t, newLauncher(t), shell(t, "(i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done); :"))
	if res.CPUUser <= 0 {
		t.Errorf("got %+v, want the user time of a busy descendant", res)
	}
	if want := (sandbox.Result{CPUUser: res.CPUUser, CPUSystem: res.CPUSystem}); res != want {
		t.Errorf("got %+v, want %+v", res, want)
	}
}

// A descriptor of the terminal outside the tree must not keep the output open for ever.
func TestForeignHolderOfOutput(t *testing.T) {
	l := newLauncher(t)
	p, err := l.Start(context.Background(), shell(t, "readlink /proc/$$/fd/1; read x; echo never"))
	if err != nil {
		t.Fatal(err)
	}
	tty, err := bufio.NewReader(p.Output()).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(strings.TrimSpace(tty), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs to open the builder's terminal: %v", err)
	}
	defer f.Close()
	if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := f.WriteString("from outside"); err != nil {
		t.Error(err)
	}
	if out, err := io.ReadAll(p.Output()); err != nil || !strings.HasSuffix(string(out), "from outside") {
		t.Errorf("got %q, %v", out, err)
	}
}
