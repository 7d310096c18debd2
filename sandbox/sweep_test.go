//go:build linux

package sandbox

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

const sweepUID = 1_899_000_001

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
}

func TestSweepUser(t *testing.T) {
	needRoot(t)
	attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: sweepUID, Gid: sweepUID}}}
	pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, attr)
	if err != nil {
		t.Fatal(err)
	}
	if alone, err := sweepUser(sweepUID); err != nil || alone {
		t.Errorf("with a process: got %v, %v; want false", alone, err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.Signal() != syscall.SIGKILL {
		t.Errorf("process: %v, %v; want killed", status, err)
	}
	if err := killUser(sweepUID); err != nil {
		t.Error(err)
	}
	if left, err := processesOf(sweepUID); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestSweepNeverRoot(t *testing.T) {
	if _, err := sweepUser(0); !errors.Is(err, ErrRootBuilder) {
		t.Errorf("got %v, want ErrRootBuilder", err)
	}
}

func BenchmarkSweepUser(b *testing.B) {
	needRoot(b)
	for b.Loop() {
		if _, err := sweepUser(sweepUID); err != nil {
			b.Fatal(err)
		}
	}
}

func TestParseStat(t *testing.T) {
	good := "12 (a) b) (c) S 3 4 5 0 -1 4194560 1 0 0 0 2 3 0 0 20 0 1 0 987 2461696 200 18446744073709551615\n"
	want := procStat{pid: 12, parent: 3, group: 4, session: 5, state: 'S', start: 987, memory: true}
	if got, err := parseStat(12, []byte(good)); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "12", "12 (sh", "12 (sh)", "12 (sh) S 1 2", "12 (sh) S x 4 5 0 -1 0 1 0 0 0 2 3 0 0 20 0 1 0 987\n"} {
		if got, err := parseStat(12, []byte(bad)); err == nil {
			t.Errorf("parse %q: got %+v, want an error", bad, got)
		}
	}
}

func TestReadProc(t *testing.T) {
	b, err := readProc("/proc/self/environ", environLimit)
	want, wantErr := os.ReadFile("/proc/self/environ")
	if err != nil || wantErr != nil || string(b) != string(want) {
		t.Errorf("got %d bytes, %v; want %d, %v", len(b), err, len(want), wantErr)
	}
	if b, err := readProc("/proc/self/status", 10); err != nil || len(b) != 10 {
		t.Errorf("limited: got %d bytes, %v; want 10", len(b), err)
	}
	if _, err := readProc("/proc/0/stat", 10); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such process: got %v", err)
	}
}

func TestClearUserRange(t *testing.T) {
	needRoot(t)
	const first, count = sweepUID + 100_000, 65536
	start := func(uid uint32) int {
		t.Helper()
		attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}}
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, attr)
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	within := []int{start(first), start(first + 5), start(first + 5), start(first + count - 1)}
	outside := []int{start(first - 1), start(first + count)}
	l, err := NewLauncher()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.ClearUser(first, count); err != nil {
		t.Error(err)
	}
	for _, pid := range within {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.Signal() != syscall.SIGKILL {
			t.Errorf("process of the range: %v, %v; want killed", status, err)
		}
	}
	for _, pid := range outside {
		if n, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); n != 0 || err != nil {
			t.Errorf("process outside of the range: %v, %v; want alive", n, err)
		}
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Wait4(pid, nil, 0, nil)
	}
	if err := l.ClearUser(first, 1); err != nil {
		t.Error(err)
	}
	if err := l.ClearUser(0, 1); !errors.Is(err, ErrRootBuilder) {
		t.Errorf("root: got %v, want ErrRootBuilder", err)
	}
}
