package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// tree finds what a builder without a user of its own has started: its process group and all descendants.
type tree struct {
	root int
}

func newTree(pid int, _ *Spec) *tree { return &tree{root: pid} }

// kill stops all members until no new one appears, and then kills them, so that ancestry stays visible.
func (t *tree) kill() error {
	var stopped []int
	for {
		members, err := t.members()
		if err != nil {
			return err
		}
		fresh := slices.DeleteFunc(members, func(pid int) bool { return slices.Contains(stopped, pid) })
		if len(fresh) == 0 {
			break
		}
		for _, pid := range fresh {
			unix.Kill(pid, unix.SIGSTOP)
		}
		stopped = append(stopped, fresh...)
	}
	var errs []error
	for _, pid := range stopped {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			errs = append(errs, fmt.Errorf("kill process %d of builder %d: %w", pid, t.root, err))
		}
	}
	return errors.Join(errs...)
}

// killAll kills the tree and returns when none of it lives.
func (t *tree) killAll() error {
	start := time.Now()
	for delay := time.Millisecond; ; delay = min(2*delay, 20*time.Millisecond) {
		members, err := t.members()
		if err != nil || len(members) == 0 {
			return err
		}
		if err := t.kill(); err != nil {
			return err
		}
		if time.Since(start) > killLimit {
			return fmt.Errorf("kill processes of builder %d: still alive: %v", t.root, members)
		}
		time.Sleep(delay)
	}
}

// zombie is SZOMB of sys/proc.h.
const zombie = 5

func (t *tree) members() ([]int, error) {
	procs, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil, fmt.Errorf("look for processes of builder %d: %w", t.root, err)
	}
	belongs := map[int]bool{t.root: true}
	for grown := true; grown; {
		grown = false
		for i := range procs {
			pid := int(procs[i].Proc.P_pid)
			in := belongs[int(procs[i].Eproc.Ppid)] || int(procs[i].Eproc.Pgid) == t.root
			if in && !belongs[pid] && pid != os.Getpid() {
				belongs[pid], grown = true, true
			}
		}
	}
	var members []int
	for i := range procs {
		if pid := int(procs[i].Proc.P_pid); belongs[pid] && procs[i].Proc.P_stat != zombie {
			members = append(members, pid)
		}
	}
	return members, nil
}

// processesOf lists the living processes whose real or effective uid is uid.
func processesOf(uid uint32) ([]int, error) {
	procs, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil, err
	}
	var pids []int
	for i := range procs {
		if procs[i].Proc.P_stat == zombie {
			continue
		}
		if procs[i].Eproc.Ucred.Uid == uid || procs[i].Eproc.Pcred.P_ruid == uid {
			pids = append(pids, int(procs[i].Proc.P_pid))
		}
	}
	return pids, nil
}
