package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/build"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// Bounds of what a hook is told.
const (
	maxSettings    = 10_000
	maxSettingSize = 16 << 20
	maxHookItems   = 4 << 20
	maxHookString  = 1 << 20
)

// Hook is the other side of the hook protocol: what a daemon hears that has started us as its build hook.
type Hook struct {
	in        *wire.Reader
	log       *speaker
	output    io.Writer
	closeRead func() error
}

// NewHook prepares to answer the questions that arrive at in. say is the standard error; output receives what builders
// print, and closeRead closes the other end of that, once nobody asks for it any more (descriptors 4 and 5). verbosity
// is that of the daemon.
func NewHook(in io.Reader, say, output io.Writer, closeRead func() error, verbosity settings.Verbosity) *Hook {
	return &Hook{in: wire.NewReader(in), log: &speaker{to: say, verbosity: activity.Level(verbosity)}, output: output, closeRead: closeRead}
}

// Settings reads the daemon's settings, with which the conversation begins.
func (h *Hook) Settings() ([]settings.NameValue, error) {
	var all []settings.NameValue
	for {
		more, err := h.in.Uint64()
		if err != nil || more == 0 {
			return all, err
		}
		if len(all) == maxSettings {
			return nil, fmt.Errorf("more than %d settings", maxSettings)
		}
		var s settings.NameValue
		if s.Name, err = h.in.String(maxSettingSize); err == nil {
			s.Value, err = h.in.String(maxSettingSize)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
}

// Fail tells the daemon what went wrong.
func (h *Hook) Fail(err error) { h.log.Message(activity.Error, build.ErrorMessage(err)) }

// DeclineAll says that nothing will ever be built elsewhere.
func (h *Hook) DeclineAll() { h.log.line("# decline-permanently\n") }

// ErrFailed says that a build has failed, and that the daemon knows.
var ErrFailed = errors.New("the remote build has failed")

// Answer answers questions until one derivation was accepted and built, or the daemon asks no more (build-remote.cc).
// systemFeatures are those of this machine's store; roots keeps what is brought here.
func (h *Hook) Answer(ctx context.Context, b *Builders, set *settings.Settings, systemFeatures []string, roots session.Roots) error {
	machines := b.poolFor(set)
	if machines == nil {
		h.DeclineAll()
		return nil
	}
	for {
		need, err := h.question(b.o.Dir)
		if err != nil || need == nil {
			return err
		}
		need.Settings, need.Log = set, h.log
		need.Local = set.MaxJobs > 0 && (need.System == set.System || slices.Contains(set.ExtraPlatforms, need.System)) &&
			!slices.ContainsFunc(need.Features, func(f string) bool { return !slices.Contains(systemFeatures, f) })
		need.Willing = need.Willing && need.Local
		answer, machine, err := machines.Ask(ctx, *need)
		if err != nil {
			return err
		}
		switch answer {
		case build.Accept:
			return h.build(ctx, b.o.Dir, machine, roots)
		case build.Postpone:
			h.log.line("# postpone\n")
		default:
			h.log.line("# decline\n")
		}
	}
}

// question reads what is asked next; nil is the end.
func (h *Hook) question(dir storepath.Dir) (*build.Need, error) {
	word, err := h.in.String(maxSettingSize)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || err == nil && word != "try" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	need := &build.Need{}
	willing, err := h.in.Uint64()
	if err != nil {
		return nil, err
	}
	need.Willing = willing != 0
	if need.System, err = h.in.String(maxSettingSize); err != nil {
		return nil, err
	}
	path, err := h.in.String(maxSettingSize)
	if err != nil {
		return nil, err
	}
	if need.DrvPath, err = dir.Parse(path); err != nil {
		return nil, err
	}
	need.Features, err = h.in.Strings(maxHookItems, maxHookString)
	slices.Sort(need.Features)
	return need, err
}

// build accepts, and has the machine build.
func (h *Hook) build(ctx context.Context, dir storepath.Dir, machine build.Reservation, roots session.Roots) error {
	if err := h.closeRead(); err != nil {
		machine.Cancel()
		return err
	}
	h.log.line("# accept\n" + strings.ReplaceAll(machine.Machine(), "\n", " ") + "\n")
	t := build.Task{Log: h.log, Output: h.output, Roots: roots, Made: func(string, storepath.Path) {}} // the protocol has no word for it
	inputs, err := h.in.Strings(maxHookItems, maxHookString)
	if err == nil {
		t.Wanted, err = h.in.Strings(maxHookItems, maxHookString)
	}
	for _, input := range inputs {
		var p storepath.Path
		if err == nil {
			p, err = dir.Parse(input)
			t.Inputs = append(t.Inputs, p)
		}
	}
	if err != nil {
		machine.Cancel()
		return err
	}
	t.Inputs = storepath.SortUnique(t.Inputs)
	slices.Sort(t.Wanted)
	err = machine.Build(ctx, t)
	if _, told := errors.AsType[*build.RemoteFailure](err); told || errors.Is(err, build.ErrLost) {
		return ErrFailed
	}
	return err
}
