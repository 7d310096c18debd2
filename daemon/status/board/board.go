// Package board keeps what people and programs may want to know of a server while it works.
//
// A [Board] asks those who do the work what is under way, when somebody wants a snapshot ([Board.Server]), and so costs
// nothing while nobody looks. It is told only of what nobody could tell it later: of clients, and of what has ended, of
// which it remembers the last few. It is an observer of builds, substitutions and collections; its methods may be called
// from any goroutine, with any lock held, since they take none but its own, under which nothing is waited for.
package board

import (
	"cmp"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nixdaemon/daemon/status"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/sandbox/cgroup"
	"nixdaemon/worker/build"
	"nixdaemon/worker/substitute"
)

// Sources are who does the work; nil ones do none.
type Sources struct {
	Dir    storepath.Dir
	Builds func() build.Status
	// Waits lists so many parts of each request that wait, and counts all.
	Waits   func(most int) ([]build.Wait, int)
	Fetches func() []substitute.FetchStatus
	Garbage func() *gc.Progress
	// Problem tells why no client is served; nil where that cannot be.
	Problem func() string
}

// Board is one.
type Board struct {
	release  string
	began    time.Time
	draining atomic.Bool
	sources  atomic.Pointer[Sources]

	mu      sync.Mutex
	clients map[*Client]struct{}
	recent  []status.Ended // a ring of mostRecent, next is where the next goes
	next    int

	usages usages
}

// usages are what builders took when that was last looked at. It takes a look at every process of the machine, so however
// many ask, and whatever begins and ends meanwhile, they are told the same for a while: a builder that has begun since then
// has taken nothing yet.
type usages struct {
	look func(pids []int) map[int]sandbox.Usage

	mu    sync.Mutex
	known map[int]sandbox.Usage
	until time.Time // when to look again
}

const (
	// fresh is how long a usage counts, at least.
	fresh = 250 * time.Millisecond
	// share is how many times as long as the look has taken it counts, so that looking takes no more than a twentieth
	// of a CPU on a machine with very many processes.
	share = 20
)

func (u *usages) of(pids []int) map[int]sandbox.Usage {
	if len(pids) == 0 {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if began := time.Now(); !began.Before(u.until) {
		u.known = u.look(pids)
		ended := time.Now()
		u.until = ended.Add(max(fresh, share*ended.Sub(began)))
	}
	return u.known
}

// mostRecent is how many of those that have ended are remembered.
const mostRecent = 32

// New makes a board of a server whose release is called so.
func New(release string) *Board {
	b := &Board{release: release, began: time.Now(), clients: make(map[*Client]struct{}), usages: usages{look: sandbox.Usages}}
	b.sources.Store(&Sources{})
	return b
}

// Watch has the board ask there.
func (b *Board) Watch(s Sources) { b.sources.Store(&s) }

// Drain notes that nobody is accepted any more.
func (b *Board) Drain() { b.draining.Store(true) }

// BuildID is how a build of this process is called.
func BuildID(id build.BuildID) string {
	return strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(uint64(id), 10)
}

// Server tells what goes on.
func (b *Board) Server() status.Server {
	s := status.Server{
		PID: os.Getpid(), Release: b.release, State: "serving", Since: b.began, Memory: ownMemory(),
		Builds: []status.Build{}, Requests: []status.Request{}, Substitutions: []status.Substitution{},
		Connections: b.connections(), Recent: b.ended(),
	}
	if b.draining.Load() {
		s.State = "draining"
	}
	from := b.sources.Load()
	if from.Problem != nil {
		s.Problem = from.Problem()
	}
	if from.Builds != nil {
		b.addBuilds(&s, from.Dir, from.Builds())
	}
	if from.Fetches != nil {
		for _, f := range from.Fetches() {
			s.Substitutions = append(s.Substitutions, status.Substitution{
				Path: from.Dir.Print(f.Path), Cache: f.Cache, Done: f.Done, Size: f.NarSize, Since: f.Began, User: f.User,
			})
		}
	}
	if from.Garbage != nil {
		s.Collection = collection(from.Garbage())
	}
	return s
}

func (b *Board) addBuilds(s *status.Server, dir storepath.Dir, st build.Status) {
	s.Slots, s.Running = st.Slots, st.Running
	var pids []int
	for _, one := range st.Builds {
		if one.PID != 0 {
			pids = append(pids, one.PID)
		}
	}
	usages := b.usages.of(pids)
	for _, one := range st.Builds {
		out := status.Build{
			ID: BuildID(one.ID), Derivation: dir.Print(one.Drv), Mode: mode(one.Mode), State: one.State, Reason: one.Reason,
			Since: one.Since, Queued: one.Queued, Machine: one.Machine, Phase: one.Phase, LastLine: one.LastLine,
			LogSize: one.LogSize, Users: users(one.Clients),
		}
		if !one.Began.IsZero() {
			out.Began = &one.Began
		}
		u := usage(usages[one.PID], one.Cgroup)
		out.CPUSeconds, out.Memory, out.Processes = u.CPU.Seconds(), u.Memory, u.Processes
		s.Builds = append(s.Builds, out)
	}
	for _, r := range st.Requests {
		s.Requests = append(s.Requests, status.Request{
			User: r.User, Client: r.Client, Since: r.Since, Builds: status.Count(r.Builds), Substitutions: status.Count(r.Fetches),
		})
	}
}

// usage is what a builder takes: what its control group counts, and the rest as the processes were found.
func usage(found sandbox.Usage, group string) sandbox.Usage {
	if group == "" {
		return found
	}
	counted, err := cgroup.ReadUsage(group)
	if err != nil { // it may just have ended
		return found
	}
	return sandbox.Usage{
		CPU: counted.CPU, Memory: cmp.Or(counted.Memory, found.Memory), Processes: cmp.Or(counted.Processes, found.Processes),
	}
}

func mode(m derivation.BuildMode) string {
	switch m {
	case derivation.BuildRepair:
		return "repair"
	case derivation.BuildCheck:
		return "check"
	}
	return ""
}

// users are those behind connections, each once.
func users(clients []build.ClientID) []string {
	list := []string{}
	seen := make(map[string]bool, len(clients))
	for _, c := range clients {
		if !seen[c.User] {
			seen[c.User] = true
			list = append(list, c.User)
		}
	}
	return list
}

func collection(p *gc.Progress) *status.Collection {
	if p == nil {
		return nil
	}
	c := &status.Collection{
		Action: action(p.Action), Step: p.Step, Since: p.Began, For: p.For, Dead: p.Dead, Deleted: p.Deleted, Freed: p.BytesFreed,
	}
	if p.MaxFreed < 1<<63 {
		c.MaxFreed = p.MaxFreed
	}
	return c
}

func action(a gc.Action) string {
	switch a {
	case gc.ReturnLive:
		return "return-live"
	case gc.ReturnDead:
		return "return-dead"
	case gc.DeleteSpecific:
		return "delete-specific"
	}
	return "delete-dead"
}

// ownMemory is what of this process is resident, 0 where the system does not tell (proc(5), statm).
func ownMemory() uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), " ")
	resident, _, _ := strings.Cut(rest, " ")
	pages, err := strconv.ParseUint(resident, 10, 40)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}
