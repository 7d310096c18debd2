package sandbox_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox"
	"nixdaemon/sandbox/sandboxtest"
)

// world is an isolated shell with the host's programs, for the user; nil is the daemon's own.
func world(t testing.TB, l *sandbox.Launcher, user *sandbox.User, script string) sandbox.Spec {
	t.Helper()
	if err := l.Support().Namespaces; err != nil {
		t.Skipf("needs namespaces: %v", err)
	}
	root := rootDir(t)
	onDisk := filepath.Join(root, "nix", "store")
	if err := os.MkdirAll(onDisk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(onDisk, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	entries := []sandbox.Entry{
		{Kind: sandbox.EntryBind, Target: "/nix/store", Source: onDisk, Fresh: true},
		{Kind: sandbox.EntryDir, Target: "/tmp", Mode: 0o777 | os.ModeSticky},
		{Kind: sandbox.EntryFile, Target: "/etc/passwd", Mode: 0o644, Text: "nixbld:x:1000:100::/build:/noshell\n"},
		{Kind: sandbox.EntryFile, Target: "/etc/group", Mode: 0o644, Text: "nixbld:!:100:\n"},
		{Kind: sandbox.EntryDir, Target: "/build", Mode: 0o700, Own: true},
		{Kind: sandbox.EntryProc, Target: "/proc"},
		{Kind: sandbox.EntryPts, Target: "/dev/pts"},
		{Kind: sandbox.EntryTmpfs, Target: "/dev/shm", Text: "10%"},
		{Kind: sandbox.EntryLink, Target: "/dev/ptmx", Text: "/dev/pts/ptmx"},
		{Kind: sandbox.EntryLink, Target: "/dev/fd", Text: "/proc/self/fd"},
	}
	for _, node := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		entries = append(entries, sandbox.Entry{Kind: sandbox.EntryBind, Target: "/dev/" + node, Source: "/dev/" + node})
	}
	for _, dir := range []string{"/bin", "/lib", "/lib64", "/usr"} {
		entries = append(entries, sandbox.Entry{Kind: sandbox.EntryBind, Target: dir, Source: dir, ReadOnly: true, Optional: true})
	}
	return sandbox.Spec{
		Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/build", User: user, FilterSyscalls: true,
		Isolation: &sandbox.Isolation{Root: root, Entries: entries, IDs: &sandbox.IDMap{UID: 1000, GID: 100, Count: 1}},
	}
}

// rootDir is a directory that only the daemon can reach.
func rootDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ignored are the signals that this process ignores, as its status tells.
func ignored(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nSigIgn:\t")
	mask, _, _ := strings.Cut(rest, "\n")
	return mask + "\n"
}

// everybody runs the test for each kind of user that there is.
func everybody(t *testing.T, test func(t *testing.T, l *sandbox.Launcher, u *sandbox.User)) {
	l := newLauncher(t)
	t.Run("own user", func(t *testing.T) { test(t, l, nil) })
	t.Run("build user", func(t *testing.T) { test(t, l, sandboxtest.BuildUser(t)) })
}

func TestIsolatedWorld(t *testing.T) {
	everybody(t, func(t *testing.T, l *sandbox.Launcher, u *sandbox.User) {
		tests := []struct{ name, script, want string }{
			{"ids", "id -u; id -g; id -un; id -gn", "1000\n100\nnixbld\nnixbld\n"},
			{"first process", "echo $$", "1\n"},
			{"processes", "set -- /proc/[0-9]*; echo $#", "1\n"},
			{"root", "cd /; echo *", "bin build dev etc lib lib64 nix proc tmp usr\n"},
			{"devices", "cd /dev; echo *", "fd full null ptmx pts random shm tty urandom zero\n"},
			{"null", "echo x >/dev/null && cat /dev/null", ""},
			{"descriptors", "ls -1 /proc/self/fd", "0\n1\n2\n3\n"},
			{"host name", "uname -n; cat /proc/sys/kernel/domainname", "localhost\n(none)\n"},
			{"network", "cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '", "lo\n"},
			{"loopback is up", "cat /proc/net/if_inet6 | cut -d' ' -f1", "00000000000000000000000000000001\n"},
			{"session", "cut -d' ' -f5-7 /proc/self/stat", "1 1 0\n"},
			{"umask", "umask", "0022\n"},
			{"core limit", "ulimit -Sc", "0\n"},
			{"capabilities", "grep -h ^Cap[PEI] /proc/self/status | cut -f2 | sort -u", "0000000000000000\n"},
			{"privileges", "grep -h NoNewPrivs /proc/self/status | cut -f2", "1\n"},
			{"filter", "grep -h ^Seccomp: /proc/self/status | cut -f2", "2\n"},
			{"signals", "grep -hE '^Sig(Blk|Cgt)' /proc/1/status | cut -f2 | sort -u | head -1; grep -h ^SigIgn /proc/1/status | cut -f2", "0000000000000000\n" + ignored(t)},
			{"build directory", "touch a && stat -c %u:%g:%a . a", "1000:100:700\n1000:100:644\n"},
			{"inputs are read-only", "touch /usr/x 2>&1 | grep -o Read-only", "Read-only\n"},
			{"mounts", "grep -c . /proc/self/mounts >/dev/null; umount /usr 2>/dev/null || echo refused", "refused\n"},
			{"old root", "cat /proc/self/mountinfo | grep -c ' / / .*ext4' || true", "0\n"},
			{"pseudoterminal", "script -qec 'tty' /dev/null | tr -d '\\r'", "/dev/pts/0\n"},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				out, res := run(t, l, world(t, l, u, tt.script))
				if out != tt.want || res.ExitCode != 0 && tt.name != "inputs are read-only" {
					t.Errorf("%s: got %q, %+v; want %q", tt.script, out, res, tt.want)
				}
			})
		}
	})
}

// TestIsolatedOutput: what is made in a directory on disk is there afterwards, beneath the root that is gone.
func TestIsolatedOutput(t *testing.T) {
	everybody(t, func(t *testing.T, l *sandbox.Launcher, u *sandbox.User) {
		spec := world(t, l, u, "echo made >/nix/store/out")
		run(t, l, spec)
		if got, err := os.ReadFile(filepath.Join(spec.Isolation.Root, "nix/store/out")); string(got) != "made\n" {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := os.Lstat(filepath.Join(spec.Isolation.Root, "etc")); err == nil {
			t.Error("the root in memory is on disk")
		}
	})
}

func TestIsolatedFilesLimit(t *testing.T) {
	want, err := exec.Command("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").Output()
	if err != nil {
		t.Fatal(err)
	}
	l := newLauncher(t)
	if out, _ := run(t, l, world(t, l, nil, "ulimit -Sn; ulimit -Hn")); out != string(want) {
		t.Errorf("got %q, a plain child has %q", out, want)
	}
}

func TestIsolatedFailures(t *testing.T) {
	l := newLauncher(t)
	if err := l.Support().Namespaces; err != nil {
		t.Skipf("needs namespaces: %v", err)
	}
	tests := []struct {
		name   string
		change func(s *sandbox.Spec)
		want   string
	}{
		{"program", func(s *sandbox.Spec) { s.Path = "/nowhere" }, "start builder '/nowhere': no such file or directory"},
		{"directory", func(s *sandbox.Spec) { s.Dir = "/nowhere" }, "enter directory '/nowhere': no such file or directory"},
		{"zero byte", func(s *sandbox.Spec) { s.Args = []string{"a\x00b"} }, "start builder '/bin/sh': invalid argument"},
		{"root", func(s *sandbox.Spec) { s.Isolation.Root = "/no/where" }, "set up sandbox of '/bin/sh': mount root '/no/where': no such file or directory"},
		{"source", func(s *sandbox.Spec) { bind(s, "/x", "/no/where") }, "getting attributes of path '/no/where': no such file or directory"},
		{"target", func(s *sandbox.Spec) { bind(s, "/x/../y", "/usr") }, "put '/x/../y' into sandbox: not an absolute, clean path"},
		{"kind", func(s *sandbox.Spec) { bind(s, "/etc/passwd", "/usr") }, "set up sandbox of '/bin/sh': mount '/etc/passwd': not a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := world(t, l, nil, "true")
			tt.change(&s)
			_, err := l.Start(t.Context(), s)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func bind(s *sandbox.Spec, target, source string) {
	s.Isolation.Entries = append(s.Isolation.Entries, sandbox.Entry{Kind: sandbox.EntryBind, Target: target, Source: source})
}

// TestIsolatedRange: with a range of ids the builder is root in its own world, and nobody outside.
func TestIsolatedRange(t *testing.T) {
	l := newLauncher(t)
	u := sandboxtest.BuildUser(t)
	s := world(t, l, u, "id -u; cat /proc/self/uid_map | tr -s ' '; hostname other && hostname; mount -t tmpfs none /tmp && echo mounted; ls /sys | grep -o kernel; chown 5:5 /build && stat -c %u /build; cat /proc/1/status | grep -c CapEff.*ffff; ip link show lo 2>/dev/null | grep -o LOOPBACK,UP; (echo 1 >/proc/sys/kernel/panic) 2>/dev/null || echo refused")
	s.Isolation.IDs = &sandbox.IDMap{Count: 65536}
	s.Isolation.Entries = append(s.Isolation.Entries, sandbox.Entry{Kind: sandbox.EntrySys, Target: "/sys"})
	out, res := run(t, l, s)
	want := "0\n 0 " + strconv.Itoa(int(u.UID)) + " 65536\nother\nmounted\nkernel\n5\n1\nLOOPBACK,UP\nrefused\n"
	if out != want && out != strings.Replace(want, "LOOPBACK,UP\n", "", 1) || res.ExitCode != 0 {
		t.Errorf("got %q, %+v; want %q", out, res, want)
	}
}

// TestIsolatedTree: nothing outlives the builder, however it hides.
func TestIsolatedTree(t *testing.T) {
	sandboxtest.NeedPrograms(t, "pgrep", "setsid")
	everybody(t, func(t *testing.T, l *sandbox.Launcher, u *sandbox.User) {
		marker := "86421.7" + strconv.Itoa(os.Getpid())
		run(t, l, world(t, l, u, "setsid sleep "+marker+" </dev/null >/dev/null 2>&1 & (sleep "+marker+" & ) & sleep 0.05"))
		if out, err := exec.Command("pgrep", "-f", "sleep "+marker).Output(); err == nil {
			t.Errorf("still there: %s", out)
		}
	})
}

// TestIsolatedCleanup: neither mounts nor descriptors are left.
func TestIsolatedCleanup(t *testing.T) {
	l := newLauncher(t)
	run(t, l, world(t, l, nil, "true")) // what is kept is there from now on
	fds, mounts := count(t, "/proc/self/fd"), mountCount(t)
	for range 20 {
		run(t, l, world(t, l, nil, "true"))
		s := world(t, l, nil, "true")
		s.Path = "/nowhere"
		if _, err := l.Start(t.Context(), s); err == nil {
			t.Fatal("no error")
		}
	}
	if got := count(t, "/proc/self/fd"); got > fds {
		t.Errorf("%d descriptors, had %d", got, fds)
	}
	if got := mountCount(t); got != mounts {
		t.Errorf("%d mounts, had %d", got, mounts)
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait for any child: %v; want none left", err)
	}
}

func count(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func mountCount(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// TestMount: a directory, a file and a link appear while the builder runs, and it cannot change them.
func TestMount(t *testing.T) {
	everybody(t, func(t *testing.T, l *sandbox.Launcher, u *sandbox.User) {
		source := sandboxtest.DirFor(t, u)
		for name, text := range map[string]string{"dir/in": "dir\n", "file": "file\n"} {
			os.MkdirAll(filepath.Dir(filepath.Join(source, name)), 0o755)
			if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("file", filepath.Join(source, "link")); err != nil {
			t.Fatal(err)
		}
		spec := world(t, l, u, "echo ready; while ! [ -e /nix/store/link ]; do sleep 0.01; done; cd /nix/store; cat dir/in file link; (echo x >file) 2>/dev/null || echo refused")
		p, err := l.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 6)
		if _, err := io.ReadFull(p.Output(), first); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"dir", "file", "link"} {
			if err := p.Mount(filepath.Join(source, name), "/nix/store/"+name); err != nil {
				t.Error(err)
			}
		}
		if err := p.Mount("/no/where", "/nix/store/x"); err == nil {
			t.Error("a source that does not exist is no error")
		}
		if out, _ := finish(t, p); out != "dir\nfile\nfile\nrefused\n" {
			t.Errorf("got %q", out)
		}
		if err := p.Mount(source, "/nix/store/late"); !errors.Is(err, sandbox.ErrEnded) {
			t.Errorf("after the end: got %v", err)
		}
	})
}
