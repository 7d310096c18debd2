package build

import (
	"context"
	"sync/atomic"
	"time"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// jobKey says what a job makes and how; requests with equal keys share it.
type jobKey struct {
	drv  storepath.Path
	mode derivation.BuildMode
	// text is the hash of a derivation that came with the request instead of from the store.
	text nixhash.Hash
	// settings is the outcome-changing part of the settings, see outcomeSettings.
	settings string
	// machines is the key of the machines that may build it, and why this one may not.
	machines string
}

type jobState uint8

const (
	jobQueued  jobState = iota // in its subscribers' queues, for its first or another slot
	jobRunning                 // holds a slot
	jobWaiting                 // runs, but without a slot, since it waits for somebody else
	jobAsking                  // waits for its turn to ask for a machine
	jobDone                    // has ended, or was given up
)

// job is one derivation being built, or queued to be.
type job struct {
	key      jobKey
	drvPath  storepath.Path
	drv      *derivation.Derivation
	mode     derivation.BuildMode
	settings *settings.Settings
	options  *derivation.Options
	good     map[storepath.Path]bool // when repairing: whether the contents of outputs are as registered, where that is known
	feed     feed

	// machines may build it; nil if none but this one may. here is nil if this one may, too.
	machines Machines
	here     error
	gate     gateKey

	// ctx ends when nobody wants the job any more.
	ctx    context.Context
	cancel context.CancelFunc
	// begun is closed by hasBegun when the job has told of its build, has to wait for somebody else, or has ended.
	begun    chan struct{}
	hasBegun func()

	// observer may be nil. It, id and queued are set once, when the job becomes known.
	observer Observer
	id       BuildID
	queued   QueuedBuild
	// transcript is nil if nobody may read along.
	transcript *transcript
	// logSize is how many bytes the builder has printed.
	logSize atomic.Uint64

	// Guarded by Scheduler.mu.
	subs    []*subscription
	state   jobState
	since   time.Time // of the state
	reason  string    // of jobWaiting
	charged *clientSlots
	resume  chan struct{} // closed to give a slot to a job that already has a goroutine
	// Of builds within builds, see lend: what this one's builder waits for, and in whose slot this one runs.
	wants  []*subscription
	lentTo *job
	lender *job
	// Of the builder: where it was started, and when; zero before.
	machine string
	beganAt time.Time
	pid     int    // of its process here, while it runs
	cgroup  string // that it is in; "" for none
	// cancelled is set when everybody who waits is to be told so.
	cancelled *Failure
}

func (j *job) waitsForSlot() bool { return j.state == jobQueued }

func (j *job) setState(state jobState) { j.setWaiting(state, "") }

// setWaiting is setState for jobWaiting, with what is waited for.
func (j *job) setWaiting(state jobState, reason string) {
	j.state, j.since, j.reason = state, time.Now(), reason
	j.observed()
}

// subscription is one request's interest in a job.
type subscription struct {
	job  *job
	req  *request
	goal *drvGoal
	slot *clientSlots
}

// outcome is how a job ended: with err if it says nothing about the derivation, with failure if the build did not
// succeed, else with outputs.
type outcome struct {
	err     error
	failure *Failure
	// builder is set with failure when it was the builder that failed: the text then gets the end of the log, as much
	// as each subscriber wants.
	builder *builderFailure

	status  derivation.BuildStatus
	outputs map[string]storepath.Path

	// again is set instead of anything else when the job is to go on once it has a slot.
	again bool

	timesBuilt          uint64
	startTime, stopTime int64
	cpuUser, cpuSystem  *int64 // microseconds
}

func failed(err error) outcome {
	if f, ok := err.(*Failure); ok {
		return outcome{failure: f}
	}
	return outcome{err: err}
}

// builderFailure is what a builder's exit says.
type builderFailure struct {
	reason string // "failed with exit code 1"
	after  string // for the end of the text
}

// text is the failure's text with the last lines of the log (derivation-building-goal.cc,
// fixupBuilderFailureErrorMessage).
func (b *builderFailure) text(dir storepath.Dir, drvPath storepath.Path, drv *derivation.BasicDerivation, tail []string, nixLog string) Text {
	t := textf("Cannot build '%s'.\nReason: %s.", dir.Print(drvPath), red("builder "+b.reason)).and(knownOutputsText(dir, drv))
	if len(tail) > 0 {
		t = t.and(textf("\nLast %s log lines:\n", plain(itoa(len(tail)))))
		for _, line := range tail {
			t = t.and(textf("> %s\n", plain(line)))
		}
		t = t.and(textf("For full logs, run:\n  %s", bold(nixLog+" "+dir.Print(drvPath))))
	}
	return t.and(textf("%s", plain(b.after)))
}
