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
}

// BuildStatus is one build that runs or waits.
type BuildStatus struct {
	Drv  storepath.Path
	Mode derivation.BuildMode
	// State is "running", "queued" for a slot, or "waiting" for what Reason says.
	State, Reason string
	// Since is when the state began.
	Since time.Time
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

// Status tells what is being built, and who waits for what.
func (s *Scheduler) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Slots: s.slots.total, Running: s.slots.running}
	for _, j := range s.jobs {
		st.Builds = append(st.Builds, j.statusLocked())
	}
	slices.SortFunc(st.Builds, func(a, b BuildStatus) int {
		if a.State != b.State {
			return stateOrder(a.State) - stateOrder(b.State)
		}
		return a.Since.Compare(b.Since)
	})
	for _, u := range s.slots.users.items {
		for _, c := range u.clients.items {
			st.Clients = append(st.Clients, ClientStatus{ClientID{u.name, c.id}, c.max, c.running})
		}
	}
	return st
}

func (j *job) statusLocked() BuildStatus {
	b := BuildStatus{Drv: j.drvPath, Mode: j.mode, Reason: j.reason, Since: j.since}
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
	for _, sub := range j.subs {
		b.Clients = append(b.Clients, ClientID{sub.req.sess.User, sub.req.sess.Client})
	}
	return b
}

func stateOrder(state string) int {
	return slices.Index([]string{"running", "waiting", "queued"}, state)
}
