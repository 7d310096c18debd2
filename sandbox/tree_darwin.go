package sandbox

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tree finds what a builder without a user of its own has started: its process group and all descendants.
type tree struct {
	root int
}

// killPause is how long the first look for what is left waits, at the least: each further one waits longer.
const killPause = time.Millisecond

func newTree(pid int, _ *Spec) *tree { return &tree{root: pid} }

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
