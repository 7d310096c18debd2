package gc

import (
	"fmt"
	"time"

	"nixdaemon/protocol/activity"
)

// account is what one collection leaves in the log of the store's owner. What was dead was either deleted or has a
// reason to be there still.
type account struct {
	begun                    time.Time
	permanent, running, temp int // roots
	alive, dead              int // paths, by the plan
	deleted                  int // made invalid, or never were valid
	limited                  bool
	// Kept for what happened meanwhile, in this order; needed are those that the others need.
	rooted, used, registered reason
	needed                   int
}

// reason is why dead paths were kept.
type reason struct {
	count int
	first string
}

func (r *reason) keep(path string) {
	if r.count++; r.count == 1 {
		r.first = path
	}
}

// unexplained is how many dead paths are neither deleted nor kept for a reason.
func (a *account) unexplained() int {
	return a.dead - a.deleted - a.rooted.count - a.used.count - a.registered.count - a.needed
}

// report tells of a collection that deletes and ended with err.
func (r *run) report(err error) {
	a, log, level := &r.account, r.o.Log, activity.Info
	if !r.req.WholeStore {
		level = activity.Debug
	}
	text := fmt.Sprintf("garbage collection: %d permanent, %d runtime and %d temporary roots; %d paths alive, %d of %d dead ones deleted, %d bytes freed, in %.2f s",
		a.permanent, a.running, a.temp, a.alive, a.deleted, a.dead, r.results.BytesFreed, time.Since(a.begun).Seconds())
	if err != nil {
		text, level = fmt.Sprintf("%s; ended by: %v", text, err), activity.Warn
	} else if a.limited {
		text += "; that was enough"
	}
	log.Message(level, text)
	a.rooted.report(log, "became roots meanwhile")
	a.used.report(log, "got a referrer meanwhile")
	a.registered.report(log, "became valid meanwhile")
	if a.needed > 0 {
		log.Message(activity.Info, fmt.Sprintf("garbage collection kept dead paths: %d are needed by such", a.needed))
	}
	if n := a.unexplained(); n != 0 && err == nil && !a.limited {
		log.Message(activity.Error, fmt.Sprintf("garbage collection left %d dead paths for no known reason", n))
	}
}

func (r *reason) report(log activity.Sink, what string) {
	if r.count > 0 {
		log.Message(activity.Info, fmt.Sprintf("garbage collection kept dead paths: %d %s, the first is '%s'", r.count, what, r.first))
	}
}
