package sandbox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"nixdaemon/sandbox"
	"nixdaemon/sandbox/sandboxtest"
)

// escape starts processes that do what they can to outlive the builder, and prints their pids.
// python is not assumed; setsid(1) is util-linux and always there.
const escape = `
trap '' TERM HUP INT
sleep 1000 & echo $!
setsid sh -c 'trap "" TERM HUP; echo $$; sleep 1001; sleep 1002' &
(setsid sh -c 'trap "" TERM HUP; (sh -c "trap \"\" TERM; echo \$\$; while :; do sleep 0.01; done") & echo $!' </dev/null &) &
(cd / && setsid sh -c 'exec >/dev/null 2>&1 </dev/null; while :; do sleep 0.02; done' & echo $!) 
`

// users are the ways in which builders run: as ourselves, and as a build user where we may.
var users = []struct {
	name string
	user func(testing.TB) *sandbox.User
}{
	{"own user", func(testing.TB) *sandbox.User { return nil }},
	{"build user", sandboxtest.BuildUser},
}

func escapeSpec(t *testing.T, u *sandbox.User, script string) sandbox.Spec {
	dir := sandboxtest.DirFor(t, u)
	spec := shell(t, script)
	spec.Dir, spec.User = dir, u
	spec.Env = append(spec.Env, "NIX_BUILD_TOP="+dir, "TMPDIR="+dir)
	return spec
}

// start sees to it that a test that fails leaves nothing running, which its launcher would wait for.
func start(t *testing.T, l *sandbox.Launcher, spec sandbox.Spec) *sandbox.Process {
	t.Helper()
	p, err := l.Start(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		p.Wait()
	})
	return p
}

func readPids(t *testing.T, r io.Reader, n int) []int {
	t.Helper()
	var pids []int
	for lines := bufio.NewScanner(r); len(pids) < n && lines.Scan(); {
		pid, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
		if err != nil {
			t.Fatalf("want a pid, got %q", lines.Text())
		}
		pids = append(pids, pid)
	}
	if len(pids) < n {
		t.Fatalf("got %d pids, want %d", len(pids), n)
	}
	return pids
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !os.IsNotExist(err)
	}
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), " ")
	return rest[0] != 'Z' && rest[0] != 'X'
}

func TestKillWholeTree(t *testing.T) {
	sandboxtest.NeedPrograms(t, "setsid")
	for _, tt := range users {
		t.Run(tt.name, func(t *testing.T) {
			l := newLauncher(t)
			p := start(t, l, escapeSpec(t, tt.user(t), escape+"sleep 1000"))
			pids := append(readPids(t, p.Output(), 5), p.Pid())
			for _, pid := range pids {
				if !alive(pid) {
					t.Errorf("process %d ended before it was killed", pid)
				}
			}
			var killers sync.WaitGroup
			for range 4 {
				killers.Go(func() {
					if err := p.Kill(); err != nil {
						t.Error(err)
					}
				})
			}
			killers.Wait()
			if _, res := finish(t, p); res.Signal != syscall.SIGKILL {
				t.Errorf("got %+v, want killed", res)
			}
			for _, pid := range pids {
				if alive(pid) {
					t.Errorf("process %d is alive after Wait", pid)
				}
			}
			if err := p.Kill(); err != nil {
				t.Errorf("kill after wait: %v", err)
			}
		})
	}
}

// The builder itself ends well; what it leaves behind must be gone all the same, and not change its status.
func TestWaitClearsLeftovers(t *testing.T) {
	sandboxtest.NeedPrograms(t, "setsid")
	for _, tt := range users {
		t.Run(tt.name, func(t *testing.T) {
			l := newLauncher(t)
			p := start(t, l, escapeSpec(t, tt.user(t), escape+"wait_for_pids=1; sleep 0.2; exit 7"))
			pids := readPids(t, p.Output(), 5)
			res, err := p.Wait()
			if err != nil || res.ExitCode != 7 {
				t.Errorf("got %+v, %v; want exit code 7", res, err)
			}
			for _, pid := range pids {
				if alive(pid) {
					t.Errorf("process %d is alive after Wait", pid)
				}
			}
			if _, err := io.ReadAll(p.Output()); err != nil {
				t.Errorf("output after wait: %v", err)
			}
		})
	}
}

// A tree that never stands still: each process starts the next and ends.
func TestKillMovingTarget(t *testing.T) {
	for _, tt := range users {
		t.Run(tt.name, func(t *testing.T) {
			l := newLauncher(t)
			spec := escapeSpec(t, tt.user(t), `: >log
cat >hop <<'END'
echo $$ >>log
sh ./hop &
END
for i in 1 2 3; do sh ./hop & done; while [ "$(wc -l <log)" -lt 50 ]; do :; done; echo 1; sleep 1000`)
			p := start(t, l, spec)
			readPids(t, p.Output(), 1)
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
			finish(t, p)
			before, err := os.ReadFile(spec.Dir + "/log")
			if err != nil {
				t.Fatal(err)
			}
			run(t, l, shell(t, "sleep 0.1"))
			after, err := os.ReadFile(spec.Dir + "/log")
			if err != nil || len(after) != len(before) {
				t.Errorf("the tree went on after Wait: log grew from %d to %d bytes, %v", len(before), len(after), err)
			}
		})
	}
}

func TestContextKills(t *testing.T) {
	l := newLauncher(t)
	ctx, cancel := context.WithCancel(context.Background())
	p, err := l.Start(ctx, shell(t, "echo 1; sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	readPids(t, p.Output(), 1)
	cancel()
	if res, err := p.Wait(); err != nil || res.Signal != syscall.SIGKILL {
		t.Errorf("got %+v, %v; want killed", res, err)
	}
	finish(t, p)
}

// Start must not fork while processes of the build user are alive, whoever started them.
func TestStartClearsBuildUser(t *testing.T) {
	u := sandboxtest.BuildUser(t)
	stray := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.UID, Gid: u.GID}}}
	pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, stray)
	if err != nil {
		t.Fatal(err)
	}
	l := newLauncher(t)
	p := start(t, l, escapeSpec(t, u, "exit 0"))
	if alive(pid) {
		t.Error("stray process is alive after Start")
	}
	finish(t, p)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.Signal() != syscall.SIGKILL {
		t.Errorf("stray process: %v, %v; want killed", status, err)
	}
}

// Builds of different trees at the same time must not kill each other's processes.
func TestTreesAreSeparate(t *testing.T) {
	sandboxtest.NeedPrograms(t, "setsid")
	l := newLauncher(t)
	long := start(t, l, escapeSpec(t, nil, "setsid sleep 1000 & echo $!; (setsid sh -c 'echo $$; exec sleep 1000' &); wait"))
	pids := append(readPids(t, long.Output(), 2), long.Pid())
	for range 10 {
		run(t, l, escapeSpec(t, nil, "setsid sleep 1000 >/dev/null 2>&1 & exit 0"))
	}
	for _, pid := range pids {
		if !alive(pid) {
			t.Errorf("process %d of another build was killed", pid)
		}
	}
	long.Kill()
	finish(t, long)
}

// The processes to be killed stop and kill all others of their user, so also whoever takes that user to kill them.
func TestKillFightsBack(t *testing.T) {
	u := sandboxtest.BuildUser(t)
	l := newLauncher(t)
	for _, signal := range []string{"STOP", "KILL"} {
		// One alone: several would stop or kill each other, and with them the fight.
		script := fmt.Sprintf("exec 2>/dev/null; trap '' TERM; kill -%[1]s -1; echo 1; while :; do kill -%[1]s -1; done", signal)
		for range 5 {
			p := start(t, l, escapeSpec(t, u, script))
			readPids(t, p.Output(), 1)
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
			finish(t, p)
		}
	}
}

// Somebody looking around in the build directory is not part of the build.
func TestVisitorSurvives(t *testing.T) {
	l := newLauncher(t)
	p := start(t, l, escapeSpec(t, nil, "pwd; sleep 1000"))
	dir, err := bufio.NewReader(p.Output()).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	visitor := exec.Command("/bin/sleep", "1000")
	visitor.Dir = strings.TrimSpace(dir)
	if err := visitor.Start(); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	finish(t, p)
	if !alive(visitor.Process.Pid) {
		t.Error("the visitor was killed")
	}
	visitor.Process.Kill()
	visitor.Wait()
}
