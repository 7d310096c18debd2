package build

import (
	"time"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// Observer is told what becomes of builds, for status, metrics and logs. [Scheduler.Status] tells the rest: what does not
// change what is to be done, such as the last line of a log, is asked for when somebody looks and costs nothing before.
//
// The methods may be called from any goroutine, those about one build one after the other: first BuildQueued, then
// BuildWaits and BuildRuns as often as it waits and goes on, last BuildEnded. Some are called with the scheduler's mutex
// held. So they return at once: they take no lock but such as are never held while something is waited for, write nowhere,
// and call nothing of the scheduler.
type Observer interface {
	// BuildQueued tells of a build that nobody has wanted before.
	BuildQueued(b QueuedBuild)
	// BuildWaits tells what a build waits for from now on: "slot", "machine", "lock on ..." or "build user".
	BuildWaits(id BuildID, reason string)
	// BuildRuns tells that a build has what it waited for.
	BuildRuns(id BuildID)
	// BuildBegan tells that the builder is started on a machine; "" is this one. A machine that is lost makes it begin
	// again elsewhere.
	BuildBegan(id BuildID, machine string)
	// BuildPhase tells of a phase that the builder has announced.
	BuildPhase(id BuildID, phase string)
	// BuildEnded tells of the end.
	BuildEnded(id BuildID, b EndedBuild)
}

// BuildID tells the builds of one [Scheduler] apart, or of those that share Options.Numbers. It is never 0.
type BuildID uint64

// QueuedBuild is a build when it becomes known.
type QueuedBuild struct {
	ID   BuildID
	Drv  storepath.Path
	Mode derivation.BuildMode
	// For is who wanted it first.
	For ClientID
	// Time is when that was.
	Time time.Time
}

// EndedBuild is how a build ended.
type EndedBuild struct {
	QueuedBuild
	// Clients are those who have waited for the end; none if nobody wanted it any more.
	Clients []ClientID
	// Machine is where the builder ran: "" is here. Began is when it was started, zero if it never was.
	Machine string
	Began   time.Time
	// Ended is when this was.
	Ended time.Time
	// Status is how it ended; Err why it failed, nil if it has not. A build whose Err is no *Failure has not been decided:
	// it was given up, or something beside it went wrong.
	Status derivation.BuildStatus
	Err    error
	// CPUUser and CPUSystem are the processor time of the builder, 0 when unknown.
	CPUUser, CPUSystem time.Duration
	// LogSize is how many bytes the builder has printed.
	LogSize uint64
}

// observed tells the observer what a job does, while its state changes. It is called with the scheduler's mutex held.
func (j *job) observed() {
	if j.observer == nil {
		return
	}
	switch j.state {
	case jobQueued:
		j.observer.BuildWaits(j.id, "slot")
	case jobAsking:
		j.observer.BuildWaits(j.id, "machine")
	case jobWaiting:
		j.observer.BuildWaits(j.id, j.reason)
	case jobRunning:
		j.observer.BuildRuns(j.id)
	}
}

// hold notes that a job which has a slot waits for something else; with "" that it does not any more.
func (s *Scheduler) hold(j *job, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.reason, j.since = reason, time.Now()
	switch {
	case j.observer == nil:
	case reason == "":
		j.observer.BuildRuns(j.id)
	default:
		j.observer.BuildWaits(j.id, reason)
	}
}

// began notes where the builder of a job is started.
func (s *Scheduler) began(j *job, machine string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.beganAt, j.machine = time.Now(), machine
	if j.observer != nil {
		j.observer.BuildBegan(j.id, machine)
	}
}

// runs notes which process here the builder is, 0 when it is none.
func (s *Scheduler) runs(j *job, pid int, cgroup string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.pid, j.cgroup = pid, cgroup
}

// endedLocked tells the observer of a job's end.
func (j *job) endedLocked(out *outcome, clients []ClientID) {
	if j.observer == nil {
		return
	}
	e := EndedBuild{
		QueuedBuild: j.queued, Clients: clients, Machine: j.machine, Began: j.beganAt, Ended: time.Now(),
		Status: out.status, Err: out.err, LogSize: j.logSize.Load(),
	}
	if out.failure != nil {
		e.Status, e.Err = out.failure.Status, out.failure
	}
	e.CPUUser, e.CPUSystem = microseconds(out.cpuUser), microseconds(out.cpuSystem)
	j.observer.BuildEnded(j.id, e)
}

func microseconds(n *int64) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(*n) * time.Microsecond
}

// clientsOf are the connections behind subscriptions.
func clientsOf(subs []*subscription) []ClientID {
	clients := make([]ClientID, len(subs))
	for i, sub := range subs {
		clients[i] = ClientID{sub.req.sess.User, sub.req.sess.Client}
	}
	return clients
}
