package remote

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/activity"
	"nixdaemon/worker/build"
	"nixdaemon/worker/settings"
)

// hooks are the processes of one build hook for clients with equal settings: at most one that is idle or being asked
// (libstore/build/worker.hh, hook), and those that build.
type hooks struct {
	b    *Builders
	key  string
	set  *settings.Settings
	refs int // guarded by Builders.mu

	// asking is held while a question is asked.
	asking sync.Mutex
	idle   *hook
	// never is true once the hook has said that it will never accept anything.
	never bool
}

var _ build.Machines = (*hooks)(nil)

// hooksFor gives the hooks that are in use for equal settings, or new ones.
func (b *Builders) hooksFor(set *settings.Settings) build.Machines {
	key := "hook\x00" + strings.Join(set.BuildHook, "\x00") + "\x00" + set.NixConfig()
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.hooks[key]
	if h == nil {
		h = &hooks{b: b, key: key, set: set}
		b.hooks[key] = h
	}
	h.refs++
	return h
}

// Key implements build.Machines.
func (h *hooks) Key() string { return h.key }

// Retain implements build.Machines.
func (h *hooks) Retain() build.Machines {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.refs++
	return h
}

// Release implements build.Machines: the last one ends the idle hook.
func (h *hooks) Release() {
	h.b.mu.Lock()
	h.refs--
	last := h.refs == 0
	if last {
		delete(h.b.hooks, h.key)
		h.b.ending.Add(1)
	}
	h.b.mu.Unlock()
	if last {
		go func() {
			defer h.b.ending.Done()
			h.asking.Lock()
			defer h.asking.Unlock()
			h.drop()
		}()
	}
}

// Changed implements build.Machines. A hook's machines are the hook's secret.
func (h *hooks) Changed() <-chan struct{} { return nil }

func (h *hooks) drop() {
	if h.idle != nil {
		h.idle.kill()
		h.idle = nil
	}
}

// Ask implements build.Machines (libstore/build/derivation-building-goal.cc, tryBuildHook).
func (h *hooks) Ask(ctx context.Context, need build.Need) (build.Answer, build.Reservation, error) {
	h.asking.Lock()
	defer h.asking.Unlock()
	if h.never {
		return build.Decline, nil, nil
	}
	if h.idle == nil {
		var err error
		if h.idle, err = h.start(); err != nil {
			return build.Decline, nil, err
		}
	}
	reply, err := h.ask(ctx, need)
	if err != nil {
		defer h.drop()
		if errors.Is(err, unix.EPIPE) {
			need.Log.Message(activity.Error, "build hook died unexpectedly: "+h.idle.lastWords())
			return build.Decline, nil, nil
		}
		return build.Decline, nil, err
	}
	switch reply {
	case "decline":
		return build.Decline, nil, nil
	case "decline-permanently":
		h.never = true
		h.drop()
		return build.Decline, nil, nil
	case "postpone":
		return build.Postpone, nil, nil
	case "accept":
		return h.accepted(ctx)
	}
	h.drop()
	return build.Decline, nil, &build.Error{Msg: build.Textf("bad hook reply '%s'", reply)}
}

func (h *hooks) start() (*hook, error) {
	hook, err := startHook(h.set)
	if failed, ok := errors.AsType[*notStarted](err); ok {
		h.b.o.Log.Error().Str("hook", h.set.BuildHook[0]).Err(failed.err).Msg("build hook")
		return nil, build.Trace(whileAsked, errEOF)
	}
	return hook, err
}

const whileAsked = "while reading the response from the build hook"

// ask puts the question and reads up to the reply. The end of ctx kills the hook.
func (h *hooks) ask(ctx context.Context, need build.Need) (string, error) {
	hook := h.idle
	stop := context.AfterFunc(ctx, hook.abort)
	defer stop()
	if err := hook.try(h.b, need); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", err
	}
	for {
		line, err := hook.line()
		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case err != nil:
			return "", build.Trace(whileAsked, err)
		case need.Log.Line(line):
		case strings.HasPrefix(line, "# "):
			return line[2:], nil
		default:
			h.b.o.Log.Info().Str("hook", h.set.BuildHook[0]).Msg(line)
		}
	}
}

// accepted hands the hook over to who asked.
func (h *hooks) accepted(ctx context.Context) (build.Answer, build.Reservation, error) {
	hook := h.idle
	h.idle = nil
	stop := context.AfterFunc(ctx, hook.abort)
	defer stop()
	machine, err := hook.line()
	if err != nil {
		hook.kill()
		if ctx.Err() != nil {
			return build.Decline, nil, context.Cause(ctx)
		}
		return build.Decline, nil, build.Trace("while reading the machine name from the build hook", err)
	}
	return build.Accept, &hookBuild{hook: hook, machine: machine, dir: h.b.o.Dir}, nil
}

// errEOF is upstream's word for the end of a hook's output (libutil/file-descriptor.cc, readLine).
var errEOF error = &build.Error{Msg: build.Textf("unexpected EOF reading a line")}

func lineError(err error) error {
	if err == io.EOF {
		return errEOF
	}
	return err
}
