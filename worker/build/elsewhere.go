package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// mostLosses bounds how many machines may get lost over a derivation: it may be what makes them.
const mostLosses = 4

// elsewhere has another machine build the derivation, if one takes it. done is false when it is to be built here, with
// the slot that the job then has; the outputs are locked (libstore/build/derivation-building-goal.cc, tryHookLoop).
func (a *attempt) elsewhere() (done bool, err error) {
	var waiting activity.ID
	losses := 0
	defer func() {
		if waiting != 0 {
			a.j.feed.Stop(waiting)
		}
	}()
	for {
		if done, err := a.lockAtGate(); done || err != nil {
			return done, err
		}
		if err := a.removeInvalid(); err != nil {
			return false, err
		}
		willing := a.j.here == nil && a.s.tryTakeSlot(a.j)
		log := &remoteLog{a: a}
		answer, machine, err := a.j.machines.Ask(a.ctx, Need{
			System: a.drv.Platform, DrvPath: a.j.drvPath, Features: requiredFeatures(a.drv, a.j.options),
			Local: a.j.here == nil, Willing: willing, Settings: a.set, Log: log,
		})
		if err != nil {
			log.end()
			return false, err
		}
		switch answer {
		case Accept:
			if waiting != 0 {
				a.j.feed.Stop(waiting)
				waiting = 0
			}
			if err = a.buildElsewhere(machine, log); !errors.Is(err, ErrLost) {
				return true, err
			}
			if losses++; losses == mostLosses {
				return true, a.remoteVerdict(&RemoteFailure{ExitCode: 1})
			}
			err = a.s.standAtGate(a.j)
		case Postpone:
			log.end()
			if waiting == 0 {
				waiting = a.tellOfWaiting()
			}
			err = a.awaitMachine(willing)
		default:
			log.end()
			return a.declined(willing)
		}
		if err != nil {
			return false, err
		}
	}
}

// declined is for when no other machine builds it: this one does, now or when there is a slot, if it can.
func (a *attempt) declined(willing bool) (done bool, err error) {
	switch {
	case a.j.here != nil:
		return false, a.j.here
	case willing:
		a.s.startsHere(a.j)
		return false, nil
	}
	a.out.again = true
	return true, nil
}

func (a *attempt) tellOfWaiting() activity.ID {
	id := a.s.ids.Next()
	text := textf("waiting for a machine to build '%s'", a.dir.Print(a.j.drvPath)).Coloured()
	a.j.feed.Start(id, activity.Warn, activity.BuildWaiting, text, nil, 0)
	a.j.hasBegun()
	return id
}

// awaitMachine waits, without the locks, before it is asked again.
func (a *attempt) awaitMachine(hadSlot bool) error {
	changed := a.j.machines.Changed()
	if err := a.unlock(false); err != nil {
		return err
	}
	if hadSlot {
		a.s.giveSlotBack(a.j, "machine")
	}
	if err := a.s.standAtGate(a.j); err != nil {
		return err
	}
	poll := time.Duration(max(1, a.set.BuildPollInterval)) * time.Second
	return a.s.awaitMachine(a.j, changed, poll, a.j.here == nil && !hadSlot)
}

func (a *attempt) unlock(deletion bool) error {
	if a.locks == nil {
		return nil
	}
	a.locks.SetDeletion(deletion)
	err := a.locks.Unlock()
	a.locks = nil
	return err
}

// lockAtGate takes the locks of the outputs unless the job has them. While it has to wait for them others may ask.
func (a *attempt) lockAtGate() (done bool, err error) {
	if a.locks != nil || a.s.away {
		return a.allThere()
	}
	files, err := a.lockFiles()
	if err != nil {
		return false, err
	}
	a.locks, err = a.store.LockPaths(a.ctx, files, pathlock.Options{TryOnly: true})
	if errors.Is(err, pathlock.ErrLocked) {
		a.s.leaveGate(a.j)
		if err = a.awaitLocks(files); err == nil {
			err = a.s.standAtGate(a.j)
		}
	}
	if err != nil {
		return false, err
	}
	return a.allThere()
}

// buildElsewhere has a machine build it that is ready to. ErrLost means that nothing has come of it.
func (a *attempt) buildElsewhere(machine Reservation, log *remoteLog) error {
	defer a.s.startsElsewhere(a.j)()
	defer log.end()
	var err error
	if a.logFile, err = a.openLog(); err != nil {
		machine.Cancel()
		return err
	}
	err = a.runElsewhere(machine, log)
	if closeErr := a.logFile.Close(); closeErr != nil {
		a.complain("write build log", closeErr)
	}
	if errors.Is(err, ErrLost) {
		a.j.feed.Stop(a.activity)
		a.activity = 0
		return err
	}
	if err != nil {
		return a.remoteVerdict(err)
	}
	if err := a.takeOutputs(); err != nil {
		return err
	}
	return a.runPostBuildHook()
}

func (a *attempt) runElsewhere(machine Reservation, log *remoteLog) error {
	a.out.startTime = a.now()
	var wanted []string
	for _, name := range slices.Sorted(maps.Keys(a.outputs)) {
		if !a.outputs[name].intact {
			wanted = append(wanted, name)
		}
	}
	a.beginOn(machine.Machine())
	lines := &logLines{sink: &a.j.feed, id: a.activity, messages: &jsonMessages{sink: &a.j.feed, id: a.activity, ids: a.s.ids}}
	made := make(map[string]storepath.Path)
	err := machine.Build(a.ctx, Task{
		Inputs: a.inputs, Wanted: wanted, Roots: jobRoots{a}, Log: log,
		Made:   func(output string, p storepath.Path) { made[output] = p },
		Output: &boundedLog{to: io.MultiWriter(lines, a.logFile), left: a.set.MaxBuildLogSize, bounded: a.set.MaxBuildLogSize > 0},
	})
	lines.end()
	a.out.timesBuilt++
	a.out.stopTime = a.now()
	if a.kind.IsImpure {
		a.madeElsewhere = made
	}
	return err
}

// jobRoots are those of everybody who waits for the build.
type jobRoots struct{ a *attempt }

// Add implements session.Roots.
func (r jobRoots) Add(ctx context.Context, paths ...storepath.Path) error {
	for _, p := range paths {
		if err := r.a.s.addRoot(ctx, r.a.j, p); err != nil {
			return err
		}
	}
	return nil
}

// errLogTooLong ends a build that prints too much.
var errLogTooLong = errors.New("the build log is too long")

// boundedLog refuses more than so many bytes.
type boundedLog struct {
	to      io.Writer
	left    uint64
	bounded bool
}

func (l *boundedLog) Write(p []byte) (int, error) {
	if l.bounded {
		if uint64(len(p)) > l.left {
			return 0, errLogTooLong
		}
		l.left -= uint64(len(p))
	}
	return l.to.Write(p)
}

// remoteVerdict is what the end of a remote build means.
func (a *attempt) remoteVerdict(err error) error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	if errors.Is(err, errLogTooLong) {
		return a.logTooLong()
	}
	if f, ok := errors.AsType[*RemoteFailure](err); ok {
		a.out.builder = &builderFailure{reason: f.status()}
		return &Failure{Status: derivation.StatusMiscFailure, Msg: textf("builder for '%s' %s", a.dir.Print(a.j.drvPath), f.status())}
	}
	return err
}

// takeOutputs finds the outputs that were brought back.
func (a *attempt) takeOutputs() error {
	if err := a.lookForOutputs(); err != nil {
		return err
	}
	for name, p := range a.madeElsewhere {
		valid, err := a.s.store.IsValid(a.ctx, p)
		if err != nil {
			return err
		}
		a.outputs[name] = &output{name: name, known: p, present: valid, intact: valid}
	}
	a.out.outputs = make(map[string]storepath.Path, len(a.outputs))
	for name, o := range a.outputs {
		if !o.intact {
			return errorf("some outputs are unexpectedly invalid")
		}
		a.out.outputs[name] = o.known
		a.madePaths = append(a.madePaths, o.known)
		// Who brought them here may not have told who waits.
		if err := a.s.addRoot(a.ctx, a.j, o.known); err != nil {
			return err
		}
	}
	a.madePaths = storepath.SortUnique(a.madePaths)
	a.out.status = derivation.StatusBuilt
	return nil
}

// remoteLog passes on what is said about a build elsewhere, and keeps what the builder prints.
type remoteLog struct {
	a        *attempt
	messages *jsonMessages // nil until there is a line
}

var _ RemoteLog = (*remoteLog)(nil)

// Line implements RemoteLog.
func (l *remoteLog) Line(line string) bool {
	if l.messages == nil {
		l.messages = &jsonMessages{sink: l, ids: l.a.s.ids, trusted: true, source: "the build hook"}
	}
	return l.messages.handle(line)
}

// Message implements RemoteLog.
func (l *remoteLog) Message(level activity.Level, text string) { l.a.j.feed.Message(level, text) }

// Start implements RemoteLog.
func (l *remoteLog) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	l.a.j.feed.Start(id, level, kind, text, fields, parent)
}

// Stop implements RemoteLog.
func (l *remoteLog) Stop(id activity.ID) { l.a.j.feed.Stop(id) }

// Result passes a result on. The lines are not the end of the log that a failure's text shows, as upstream.
func (l *remoteLog) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	l.a.j.feed.latest.note(kind, fields)
	l.a.j.feed.result(id, kind, fields, true)
	if l.a.logFile == nil || len(fields) == 0 {
		return
	}
	var err error
	switch kind {
	case activity.BuildLogLine:
		_, err = io.WriteString(l.a.logFile, fields[0].Text+"\n")
	case activity.SetPhase:
		_, err = io.WriteString(l.a.logFile, phaseLine(fields[0].Text))
	}
	if err != nil {
		l.a.complain("write build log", err)
	}
}

// phaseLine is how a builder would have told of a phase.
func phaseLine(phase string) string {
	var line bytes.Buffer
	line.WriteString(`@nix {"action":"setPhase","phase":`)
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(phase); err != nil {
		return ""
	}
	return strings.TrimSuffix(line.String(), "\n") + "}\n"
}

// end stops activities that were left open.
func (l *remoteLog) end() {
	if l.messages != nil {
		l.messages.end()
	}
}

// beginOn tells everybody that a machine has begun the build.
func (a *attempt) beginOn(machine string) {
	a.announceBuild(" on '"+strings.ReplaceAll(machine, "\n", " ")+"'", machine)
}
