//go:build linux && (amd64 || arm64)

package child

import (
	"os"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/internal/plan"
)

// TestLayout: run_linux_*.s has these as numbers.
func TestLayout(t *testing.T) {
	var c call
	var r report
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"args", unsafe.Offsetof(c.args), 8}, {"save", unsafe.Offsetof(c.save), 56}, {"rule", unsafe.Offsetof(c.rule), 64},
		{"tolerate", unsafe.Offsetof(c.tolerate), 72}, {"passOver", unsafe.Offsetof(c.passOver), 80}, {"call", callSize, 88},
		{"failed", unsafe.Offsetof(r.failed), 0}, {"errno", unsafe.Offsetof(r.errno), 8},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

func num(n int) plan.Arg { return plan.Arg{Value: uint64(n)} }

func bytes(s string) plan.Arg { return plan.Arg{Block: &plan.Block{Bytes: []byte(s)}} }

func step(name string, number uintptr, args ...plan.Arg) plan.Step {
	return plan.Step{Verb: name, Number: number, Args: args}
}

func end(status int) plan.Step { return step("end", unix.SYS_EXIT_GROUP, num(status)) }

// run carries out steps and returns what they have written to a pipe, whose descriptor is the first argument of write.
func run(t *testing.T, steps func(write func(s string) plan.Step) []plan.Step) (string, unix.WaitStatus, *Failure) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	m := NewImage(steps(func(s string) plan.Step {
		return step("write", unix.SYS_WRITE, num(int(w.Fd())), bytes(s), num(len(s)))
	}))
	defer m.Close()
	pid, err := m.Start(0)
	if err != nil {
		t.Fatal(err)
	}
	pid, failure := m.Finish(pid)
	var status unix.WaitStatus
	if failure == nil {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
			t.Error(err)
		}
	}
	w.Close()
	buf := make([]byte, 100)
	n, _ := r.Read(buf)
	return string(buf[:max(n, 0)]), status, failure
}

func TestSteps(t *testing.T) {
	failing := step("close nothing", unix.SYS_CLOSE, num(1<<20))
	tests := []struct {
		name   string
		steps  func(write func(string) plan.Step) []plan.Step
		want   string
		status int
		failed string
		errno  unix.Errno
	}{
		{"in order", func(w func(string) plan.Step) []plan.Step { return []plan.Step{w("a"), w("b"), end(3)} }, "ab", 3, "", 0},
		{"failure", func(w func(string) plan.Step) []plan.Step { return []plan.Step{w("a"), failing, w("b"), end(0)} },
			"a", 0, "close nothing", unix.EBADF},
		{"tolerated", func(w func(string) plan.Step) []plan.Step {
			s := failing
			s.Tolerate = unix.EBADF
			return []plan.Step{s, w("b"), end(0)}
		}, "b", 0, "", 0},
		{"another error is not tolerated", func(w func(string) plan.Step) []plan.Step {
			s := failing
			s.Tolerate = unix.ENOENT
			return []plan.Step{s, w("b"), end(0)}
		}, "", 0, "close nothing", unix.EBADF},
		{"guard", func(w func(string) plan.Step) []plan.Step {
			s := failing
			s.Tolerate, s.Guard = unix.EBADF, true
			return []plan.Step{s, w("left out"), w("b"), end(0)}
		}, "b", 0, "", 0},
		{"guard that holds", func(w func(string) plan.Step) []plan.Step {
			s := w("a")
			s.Tolerate, s.Guard = unix.EBADF, true
			return []plan.Step{s, w("b"), end(0)}
		}, "ab", 0, "", 0},
		{"result", func(w func(string) plan.Step) []plan.Step {
			// The descriptor of the pipe, by way of dup.
			source := w("x")
			dup := step("dup", unix.SYS_DUP, source.Args[0])
			dup.Result, dup.Ahead = plan.ResultNext, 1
			source.Args[0] = num(1 << 20)
			return []plan.Step{dup, w("a"), source, end(0)}
		}, "ax", 0, "", 0},
		{"zero", func(w func(string) plan.Step) []plan.Step {
			s := w("a")
			s.Result = plan.ResultZero
			return []plan.Step{s, w("b"), end(0)}
		}, "a", 0, "write", unix.ESRCH},
		{"fork", func(w func(string) plan.Step) []plan.Step {
			args := []plan.Arg{num(unix.CLONE_VM | unix.CLONE_PARENT | unix.CLONE_CHILD_CLEARTID | int(unix.SIGCHLD)), {}, {}, {}, {}}
			for _, s := range plan.Steps(plan.Input{UserNamespace: 0, Network: -1, Cgroup: -1, Daemon: -1}) {
				if s.Call == "clone" {
					args = s.Args
				}
			}
			s := step("clone", unix.SYS_CLONE, args...)
			s.Result = plan.ResultFork
			return []plan.Step{w("a"), s, w("b"), end(5)}
		}, "ab", 5, "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, status, failure := run(t, tt.steps)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			switch {
			case failure == nil && tt.failed == "":
				if status.ExitStatus() != tt.status {
					t.Errorf("exit status %d, want %d", status.ExitStatus(), tt.status)
				}
			case failure == nil || tt.failed == "" || failure.Step.Verb != tt.failed || failure.Errno != tt.errno:
				t.Errorf("got failure %+v, want %s: %v", failure, tt.failed, tt.errno)
			}
		})
	}
}

func TestKept(t *testing.T) {
	s := step("get id", unix.SYS_GETPID)
	s.Result = plan.ResultKeep
	m := NewImage([]plan.Step{s, end(0)})
	defer m.Close()
	pid, err := m.Start(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, failure := m.Finish(pid); failure != nil {
		t.Fatal(failure)
	}
	Reap(pid)
	if m.Kept() != pid {
		t.Errorf("kept %d, the child was %d", m.Kept(), pid)
	}
}

// TestManyAtOnce: images do not share anything, and the collector does not move them.
func TestManyAtOnce(t *testing.T) {
	for i := range 8 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			for range 50 {
				got, _, failure := run(t, func(w func(string) plan.Step) []plan.Step {
					return []plan.Step{w(strconv.Itoa(i)), w("."), end(0)}
				})
				if got != strconv.Itoa(i)+"." || failure != nil {
					t.Errorf("got %q, %+v", got, failure)
				}
			}
		})
	}
}
