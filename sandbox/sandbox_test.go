package sandbox_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"nixdaemon/sandbox"
)

func newLauncher(t testing.TB) *sandbox.Launcher {
	t.Helper()
	l, err := sandbox.NewLauncher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// shell is a Spec that runs script with /bin/sh.
func shell(t testing.TB, script string) sandbox.Spec {
	t.Helper()
	return sandbox.Spec{
		Path: "/bin/sh",
		Args: []string{"sh", "-c", script},
		Env:  []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
		Dir:  t.TempDir(),
	}
}

// run runs a builder to its end as a build does: output to the end, kill, wait.
func run(t testing.TB, l *sandbox.Launcher, spec sandbox.Spec) (string, sandbox.Result) {
	t.Helper()
	p, err := l.Start(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return finish(t, p)
}

func finish(t testing.TB, p *sandbox.Process) (string, sandbox.Result) {
	t.Helper()
	out, err := io.ReadAll(p.Output())
	if err != nil {
		t.Errorf("read output: %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	res, err := p.Wait()
	if err != nil {
		t.Errorf("wait: %v", err)
	}
	return string(out), res
}

func TestOutputAndStatus(t *testing.T) {
	l := newLauncher(t)
	tests := []struct {
		name, script, out string
		code              int
		signal            syscall.Signal
	}{
		{"success", "echo one; echo two >&2", "one\ntwo\n", 0, 0},
		{"raw bytes", `printf 'a\r\nb\tc\001\004d'`, "a\r\nb\tc\x01\x04d", 0, 0},
		{"failure", "exit 3", "", 3, 0},
		{"signal", "kill -TERM $$", "", -1, syscall.SIGTERM},
		{"background child holds the output", "(sleep 0.05; echo late) & echo early; exit 4", "early\nlate\n", 4, 0},
		{"closed output", "exec >&- 2>&-; sleep 60", "", -1, syscall.SIGKILL},
		{"empty standard input", "cat; echo end", "end\n", 0, 0},
		{"no terminal to open", "(: </dev/tty) 2>/dev/null || echo none", "none\n", 0, 0},
		{"umask", "umask", "0022\n", 0, 0},
		{"core limit", "ulimit -Sc", "0\n", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, res := run(t, l, shell(t, tt.script))
			if out != tt.out || res.ExitCode != tt.code || res.Signal != tt.signal {
				t.Errorf("%q: got %q, %d, %v; want %q, %d, %v", tt.script, out, res.ExitCode, res.Signal, tt.out, tt.code, tt.signal)
			}
		})
	}
}

func TestLargeOutput(t *testing.T) {
	out, _ := run(t, newLauncher(t), shell(t, "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"))
	if got := strings.Count(out, "\n"); got != 20000 || !strings.HasSuffix(out, "line 19999\n") {
		t.Errorf("got %d lines, end %q", got, out[max(0, len(out)-20):])
	}
}

func TestEnvironmentIsComplete(t *testing.T) {
	t.Setenv("SANDBOX_TEST_LEAK", "1")
	l := newLauncher(t)
	spec := sandbox.Spec{Path: "/usr/bin/env", Args: []string{"env"}, Env: []string{"A=1", "TERM=xterm-256color"}, Dir: "/"}
	if out, _ := run(t, l, spec); out != "A=1\nTERM=xterm-256color\n" {
		t.Errorf("got %q", out)
	}
	spec.Env = nil
	if out, _ := run(t, l, spec); out != "" {
		t.Errorf("nil environment: got %q", out)
	}
}

func TestStartErrors(t *testing.T) {
	l := newLauncher(t)
	script := t.TempDir() + "/plain"
	if err := os.WriteFile(script, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"x"}
	tests := []struct {
		name string
		spec sandbox.Spec
		want string
		is   error
	}{
		{"no such program", sandbox.Spec{Path: "/x/y", Args: args, Dir: "/"}, "start builder '/x/y': no such file or directory", syscall.ENOENT},
		{"not executable", sandbox.Spec{Path: script, Args: args, Dir: "/"}, "start builder '" + script + "': permission denied", syscall.EACCES},
		{"no such directory", sandbox.Spec{Path: "/bin/true", Args: args, Dir: "/x/d"}, "enter directory '/x/d': no such file or directory", syscall.ENOENT},
		{"directory is a file", sandbox.Spec{Path: "/bin/true", Args: args, Dir: script}, "enter directory '" + script + "': not a directory", syscall.ENOTDIR},
		{"relative program", sandbox.Spec{Path: "sh", Args: args, Dir: "/"}, "start builder 'sh': path is not absolute", nil},
		{"relative directory", sandbox.Spec{Path: "/bin/sh", Args: args, Dir: "d"}, "start builder '/bin/sh': directory 'd' is not absolute", nil},
		{"no argument vector", sandbox.Spec{Path: "/bin/sh", Dir: "/"}, "start builder '/bin/sh': empty argument vector", nil},
		{"root as build user", sandbox.Spec{Path: "/bin/sh", Args: args, Dir: "/", User: &sandbox.User{GID: 1}}, "start builder '/bin/sh': build user has uid 0", sandbox.ErrRootBuilder},
		{"zero byte", sandbox.Spec{Path: "/bin/true", Args: []string{"a\x00b"}, Dir: "/"}, "start builder '/bin/true': invalid argument", syscall.EINVAL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := l.Start(context.Background(), tt.spec)
			if err == nil || err.Error() != tt.want || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
