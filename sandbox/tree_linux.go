package sandbox

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree finds what a builder without a user of its own has started. It is guarded by its Process's mu.
type tree struct {
	root    int // the builder: also the session and the process group
	dir     string
	marks   []string // environment entries that name dir
	started time.Time
	// seen are the members found so far with their start times. A process on its way out loses what it was found by
	// before it is gone.
	seen map[int]uint64
}

// killPause is how long the first look for what is left waits, at the least: each further one waits longer.
const killPause = 100 * time.Microsecond

func newTree(pid int, spec *Spec) *tree {
	return &tree{root: pid, dir: spec.Dir, marks: spec.dirMarks(), started: time.Now(), seen: make(map[int]uint64)}
}

// members lists the living processes that belong to the tree: by session or process group, by ancestry,
// or by naming the build directory.
func (t *tree) members() ([]int, error) {
	candidates, err := t.candidates()
	if err != nil {
		return nil, err
	}
	belongs := map[int]bool{t.root: true}
	for _, s := range candidates {
		if t.seen[s.pid] == s.start || s.session == t.root || s.group == t.root || t.marked(s) {
			belongs[s.pid] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, s := range candidates {
			if !belongs[s.pid] && belongs[s.parent] {
				belongs[s.pid], grown = true, true
			}
		}
	}
	var members []int
	for _, s := range candidates {
		if belongs[s.pid] && s.living() {
			t.seen[s.pid] = s.start
			members = append(members, s.pid)
		}
	}
	return members, nil
}

// candidates are the processes that are no older than the builder.
func (t *tree) candidates() ([]procStat, error) {
	pids, err := t.pids()
	if err != nil {
		return nil, err
	}
	root, err := readStat(t.root)
	if err != nil {
		return nil, fmt.Errorf("look for processes of builder %d: %w", t.root, err)
	}
	candidates := []procStat{root}
	for _, pid := range pids {
		if pid == t.root || pid == os.Getpid() || ownThread(pid) {
			continue
		}
		// Those that cannot be read have ended.
		if s, err := readStat(pid); err == nil && s.start >= root.start {
			candidates = append(candidates, s)
		}
	}
	return candidates, nil
}

const (
	// rangeAge is how old a builder may be for the process ids given out since to be a plain range:
	// the kernel cannot have gone round all of them in so short a time.
	rangeAge = 250 * time.Millisecond
	// rangeLimit is how many ids are worth probing one by one rather than listing /proc.
	rangeLimit = 2000
)

// pids lists the processes that may be as young as the builder. Short builds are many and leave nothing behind:
// for them it costs a few probes instead of a walk over the whole machine's processes.
func (t *tree) pids() ([]int, error) {
	if time.Since(t.started) > rangeAge {
		return allPids()
	}
	last, err := lastPid()
	if err != nil {
		return nil, err
	}
	if last < t.root || last-t.root > rangeLimit {
		return allPids()
	}
	var pids []int
	for pid := t.root + 1; pid <= last; pid++ {
		if unix.Kill(pid, 0) != unix.ESRCH {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// ownThread: ids of our threads come from the same range, and /proc answers for them.
func ownThread(pid int) bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/task/"+strconv.Itoa(pid), &st) == nil
}

// environLimit bounds what is read of an environment, which its process may have made as large as its memory allows.
// The kernel accepts no more than 6 MiB at exec.
const environLimit = 6 << 20

// readEnviron looks more than once at an empty environment: a process in the middle of an exec has one for a moment.
func readEnviron(name string, memory bool) (env []byte, err error) {
	for range 5 {
		env, err = readProc(name, environLimit)
		if err != nil || len(env) > 0 || !memory {
			break
		}
		time.Sleep(200 * time.Microsecond)
	}
	return env, err
}

// marked recognises a daemonised process, which has left session, group and parents: it was given an environment that
// names the build directory, or is an orphan that works in it. (A mere visitor to the directory, such as an
// administrator's shell, is no orphan.) One that has shed both is out of reach without a build user.
func (t *tree) marked(s procStat) bool {
	proc := "/proc/" + strconv.Itoa(s.pid)
	env, err := readEnviron(proc+"/environ", s.memory)
	if err != nil {
		return false
	}
	for entry := range strings.SplitSeq(string(env), "\x00") {
		if slices.Contains(t.marks, entry) {
			return true
		}
	}
	if s.parent != 1 {
		return false
	}
	cwd, err := os.Readlink(proc + "/cwd")
	return err == nil && (cwd == t.dir || strings.HasPrefix(cwd, t.dir+"/"))
}
