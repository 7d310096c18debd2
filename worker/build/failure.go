package build

import (
	"errors"

	"nixdaemon/protocol/derivation"
)

// Failure is a build that did not succeed, as far as it is the build's own fault. Other errors of this package
// (a disk that fails, a malformed request) end the whole request.
type Failure struct {
	// Status is one of the statuses that are no success.
	Status derivation.BuildStatus
	// HashMismatch marks the OutputRejected of a fixed output with the wrong hash; the protocol has no status for it.
	HashMismatch bool
	// NonDeterministic marks an output that came out differently.
	NonDeterministic bool
	// Msg is upstream's text.
	Msg  Text
	exit uint64
}

// Error is the text without colours.
func (f *Failure) Error() string { return f.Msg.String() }

// Coloured is the text as upstream sends it.
func (f *Failure) Coloured() string { return f.Msg.Coloured() }

// Coloured gives the text of any error as it goes to a client: with upstream's colours if it has them.
func Coloured(err error) string {
	if c, ok := errors.AsType[interface {
		error
		Coloured() string
	}](err); ok && c.Error() == err.Error() {
		return c.Coloured()
	}
	return err.Error()
}

func failuref(status derivation.BuildStatus, format string, args ...any) *Failure {
	return &Failure{Status: status, Msg: textf(format, args...)}
}

func (f *Failure) withExitStatus(status uint64) *Failure {
	c := *f
	c.exit = status
	return &c
}

// ExitStatus is the status with which a command-line program shall end: 1, or a sum of bits from 100 on. It is known
// of what [Scheduler.BuildPaths] and [Scheduler.EnsurePath] return.
func (f *Failure) ExitStatus() uint64 { return max(1, f.exit) }

// Error is an error that ends the request and whose text clients see.
type Error struct {
	Msg  Text
	exit uint64
}

// Error is the text without colours.
func (e *Error) Error() string { return e.Msg.String() }

// Coloured is the text as upstream sends it.
func (e *Error) Coloured() string { return e.Msg.Coloured() }

// ExitStatus is as that of a [Failure].
func (e *Error) ExitStatus() uint64 { return max(1, e.exit) }

func errorf(format string, args ...any) *Error { return &Error{Msg: textf(format, args...)} }

// exitFlags collects what kinds of failure a request has seen (libstore/build-result.cc, ExitStatusFlags).
type exitFlags struct {
	permanent, timedOut, hashMismatch, checkMismatch bool
}

func (e *exitFlags) add(f *Failure) {
	switch {
	case f.HashMismatch:
		e.hashMismatch = true
	case f.Status == derivation.StatusTimedOut:
		e.timedOut = true
	case f.Status == derivation.StatusNotDeterministic:
		e.checkMismatch = true
	case f.Status == derivation.StatusPermanentFailure, f.Status == derivation.StatusInputRejected:
		e.permanent = true
	}
}

// status is 1, or 96 plus 4 for a build that failed, with 1 for a timeout and 2 for a wrong hash, plus 8 for a check
// that found a difference.
func (e *exitFlags) status() uint64 {
	var mask uint64
	if e.permanent || e.timedOut || e.hashMismatch {
		mask |= 0b0100
	}
	if e.timedOut {
		mask |= 0b0001
	}
	if e.hashMismatch {
		mask |= 0b0010
	}
	if e.checkMismatch {
		mask |= 0b1000
	}
	if mask == 0 {
		return 1
	}
	return 0b1100000 | mask
}
