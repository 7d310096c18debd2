package build

import (
	"time"

	"nixdaemon/protocol/storepath"
)

// Timing is how long the parts of one build took, by the clock.
type Timing struct {
	// Setup is from the slot to the exec of the builder: locks, user, build directory, sandbox. Waiting for locks and
	// for users counts.
	Setup time.Duration
	// Run is the builder's own time.
	Run time.Duration
	// Finish is from the builder's end to the registration of its outputs and the end of what was made for it.
	Finish time.Duration
}

// stopwatch notes when a build came to which point.
type stopwatch struct {
	slot, exec, end time.Time
}

// report tells of a build whose builder has run.
func (w *stopwatch) report(to func(storepath.Path, Timing), drvPath storepath.Path) {
	if to == nil || w.end.IsZero() {
		return
	}
	to(drvPath, Timing{Setup: w.exec.Sub(w.slot), Run: w.end.Sub(w.exec), Finish: time.Since(w.end)})
}
