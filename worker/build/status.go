package build

import (
	"slices"
	"time"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// Status is what a [Scheduler] does at one moment.
type Status struct {
	// Slots are how many builds may run at once, Running how many do.
	Slots, Running int
	// Builds are those that run or wait, the oldest of each state first.
	Builds []BuildStatus
	// Clients are the shares of those who have builds.
	Clients []ClientStatus
	// Requests are what clients wait for, the oldest first.
	Requests []RequestStatus
}

// RequestStatus is how far one request of a client is.
type RequestStatus struct {
	ClientID
	// Since is when it began.
	Since time.Time
	Counts
}

// Counts are the parts of a request.
type Counts struct {
	// Builds counts derivations, Fetches paths to be substituted: those that are done, that are not, of these those that are
	// being worked on, and those that failed.
	Builds, Fetches Count
}

// Count is how many parts of a kind there are in which state.
type Count struct{ Done, Open, Running, Failed uint64 }

// BuildStatus is one build that runs or waits.
type BuildStatus struct {
	ID   BuildID
	Drv  storepath.Path
	Mode derivation.BuildMode
	// State is "running", "queued" for a slot, or "waiting" for what Reason says.
	State, Reason string
	// Since is when the state began, Queued when the build became known, Began when its builder was started, zero before.
	Since, Queued, Began time.Time
	// Machine is where the builder runs; "" is here.
	Machine string
	// Phase is what the builder has announced last, LastLine the last line of its log.
	Phase, LastLine string
	// PID is the builder's process on this machine, Cgroup the control group that it is in; 0 and "" if there is none.
	PID    int
	Cgroup string
	// LogSize is how many bytes it has printed.
	LogSize uint64
	// Clients are those who want it.
	Clients []ClientID
}

// ClientID tells connections apart.
type ClientID struct {
	User   string
	Client uint64
}

// ClientStatus is one client's share of the slots.
type ClientStatus struct {
	ClientID
	MaxJobs, Running int
}

// Running is how many builds run at the moment.
func (s *Scheduler) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots.running
}

// Building are the derivations of the builds that run at the moment, the oldest first.
func (s *Scheduler) Building() []storepath.Path {
	s.mu.Lock()
	var jobs []BuildStatus
	for _, j := range s.jobs {
		if j.state == jobRunning {
			jobs = append(jobs, BuildStatus{Drv: j.drvPath, Since: j.since})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(jobs, func(a, b BuildStatus) int { return a.Since.Compare(b.Since) })
	var drvs []storepath.Path
	for _, j := range jobs {
		drvs = append(drvs, j.Drv)
	}
	return drvs
}

// Status tells what is being built, and who waits for what.
func (s *Scheduler) Status() Status {
	st := s.unsortedStatus()
	slices.SortFunc(st.Builds, func(a, b BuildStatus) int {
		if a.State != b.State {
			return stateOrder(a.State) - stateOrder(b.State)
		}
		return a.Since.Compare(b.Since)
	})
	slices.SortFunc(st.Requests, func(a, b RequestStatus) int { return a.Since.Compare(b.Since) })
	return st
}

// unsortedStatus holds up builds for no longer than it takes to copy.
func (s *Scheduler) unsortedStatus() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Slots: s.slots.total, Running: s.slots.running, Builds: make([]BuildStatus, 0, len(s.jobs))}
	for _, j := range s.jobs {
		st.Builds = append(st.Builds, j.statusLocked())
	}
	for r := range s.requests {
		st.Requests = append(st.Requests, RequestStatus{ClientID{r.sess.User, r.sess.Client}, r.since, r.counts.get()})
	}
	for _, u := range s.slots.users.items {
		for _, c := range u.clients.items {
			st.Clients = append(st.Clients, ClientStatus{ClientID{u.name, c.id}, c.max, c.running})
		}
	}
	return st
}

func (j *job) statusLocked() BuildStatus {
	b := BuildStatus{
		ID: j.id, Drv: j.drvPath, Mode: j.mode, Reason: j.reason, Since: j.since, Queued: j.queued.Time, Began: j.beganAt,
		Machine: j.machine, PID: j.pid, Cgroup: j.cgroup, LogSize: j.logSize.Load(), Clients: clientsOf(j.subs),
	}
	b.Phase, b.LastLine = j.feed.latest.get()
	switch j.state {
	case jobQueued:
		b.State = "queued"
	case jobRunning:
		b.State = "running"
	case jobWaiting:
		b.State = "waiting"
	case jobAsking:
		b.State, b.Reason = "waiting", "machine"
	}
	if b.State == "running" && b.Reason != "" {
		b.State = "waiting"
	}
	return b
}

func stateOrder(state string) int {
	return slices.Index([]string{"running", "waiting", "queued"}, state)
}
