package build

import (
	"errors"
	"strings"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// options reads what a derivation's attributes ask for. Warnings go to log, which may be nil.
func (s *Scheduler) options(set *settings.Settings, log activity.Sink, drvPath storepath.Path, drv *derivation.Derivation) (*derivation.Options, error) {
	options, warnings, err := drv.Options(s.store.Dir(), drvFeatures(set.ExperimentalFeatures))
	if err != nil && strings.HasPrefix(err.Error(), "[json.exception.") {
		// An exception of the library that upstream has, which is told as it is.
		return nil, err
	}
	if err != nil {
		return nil, &traceError{"while parsing derivation '" + s.store.Dir().Print(drvPath) + "'", err}
	}
	if log != nil {
		for _, w := range warnings {
			log.Message(activity.Warn, warning(textf("%s", plain(w))))
		}
	}
	return options, nil
}

func (s *Scheduler) substitutesAllowed(sess *session.Session, drvPath storepath.Path, drv *derivation.Derivation) (bool, error) {
	if sess.Settings.AlwaysAllowSubstitutes {
		return true, nil
	}
	options, err := s.options(sess.Settings, nil, drvPath, drv)
	return err == nil && options.AllowSubstitutes, err
}

// traceError is an error with a line of context, as clients are shown it apart from the message.
type traceError struct {
	trace string
	err   error
}

func (e *traceError) Error() string { return e.err.Error() }

func (e *traceError) Unwrap() error { return e.err }

// Traces are the lines of context, the outermost first.
func (e *traceError) Traces() []string {
	traces := []string{e.trace}
	for err := e.err; err != nil; err = errors.Unwrap(err) {
		switch below := err.(type) {
		case *derivation.TraceError:
			traces = append(traces, below.Trace)
		case *traceError:
			return append(traces, below.Traces()...)
		}
	}
	return traces
}
