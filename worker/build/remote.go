package build

import (
	"context"
	"io"
	"syscall"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// Remote knows the other machines that build for this one.
type Remote interface {
	// Machines gives those that a client with these settings may use; nil if there are none. What it gives is shared by
	// all whose settings lead to the same machines, and released by each.
	Machines(set *settings.Settings) Machines
	// Configured tells whether the settings name any machine.
	Configured(set *settings.Settings) bool
}

// Machines are some machines, and who chooses among them. Its methods may be called from any goroutine.
type Machines interface {
	// Key tells it from others that are in use at the same time.
	Key() string
	// Ask looks for a machine for a derivation. The Reservation is not nil if and only if the answer is Accept. Questions are
	// answered one after the other.
	Ask(ctx context.Context, need Need) (Answer, Reservation, error)
	// Changed gives a channel that is closed when a machine may have become free; nil if nobody can tell.
	Changed() <-chan struct{}
	// Retain counts another user, who calls Release when done.
	Retain() Machines
	Release()
}

// Need is what a derivation needs of a machine.
type Need struct {
	// System is the platform; every machine can do "builtin".
	System   string
	DrvPath  storepath.Path // valid here
	Features []string       // that the machine must have, sorted
	// Local is true if the derivation could be built on this machine, Willing if it could be at once.
	Local, Willing bool
	// Settings are those of who asks.
	Settings *settings.Settings
	// Log receives what is said meanwhile.
	Log RemoteLog
}

// Answer is what becomes of a question.
type Answer uint8

// The answers. Their words in upstream's hook protocol are "decline", "postpone" and "accept"; "decline-permanently" is
// a Decline that Machines remembers.
const (
	// Decline means that the derivation is not built elsewhere.
	Decline Answer = iota
	// Postpone means that all machines for it are busy.
	Postpone
	// Accept means that a machine is ready, and reserved.
	Accept
)

// Reservation is a machine that is ready to build. Exactly one of its methods is called, once.
type Reservation interface {
	// Machine names it for clients.
	Machine() string
	// Build has the derivation built, and its outputs made valid here; their locks are held by the caller. When the end
	// of ctx makes it return, nothing goes on. A *RemoteFailure says that the other side has told what went wrong; ErrLost
	// that the machine was lost, which says nothing about the derivation.
	Build(ctx context.Context, t Task) error
	// Cancel gives the machine up.
	Cancel()
}

// Task is what is to be built with a Reservation.
type Task struct {
	// Inputs are all paths that the builder may use, sorted.
	Inputs []storepath.Path
	// Wanted are the names of the outputs that are missing here, sorted.
	Wanted []string
	// Made is told where an output of an impure derivation is: nobody knows that beforehand, nor finds it written down.
	Made func(output string, p storepath.Path)
	// Roots keeps what is brought here from being collected.
	Roots session.Roots
	// Log receives messages and activities.
	Log RemoteLog
	// Output receives what the builder prints where that arrives as a stream. When Write returns an error the build is to
	// end with it.
	Output io.Writer
}

// RemoteLog receives what other machines and who speaks to them have to say. Activities are numbered by the daemon's
// [activity.IDs].
type RemoteLog interface {
	activity.Sink
	// Line takes a line of upstream's log in JSON form ("@nix {...}") from a program that is trusted, as libutil's
	// JSONLogger writes it; false if it is something else.
	Line(line string) bool
}

// RemoteFailure is the end of a remote build that did not succeed. What there is to say was logged.
type RemoteFailure struct {
	// ExitCode or Signal are how the program ended that has built remotely, or would have.
	ExitCode int
	Signal   syscall.Signal
}

// Error tells how it ended.
func (f *RemoteFailure) Error() string { return "remote build " + f.status() }

// ErrLost means that the connection to a machine was lost.
var ErrLost error = errorf("lost the connection to a remote machine")

// Textf is a text whose arguments, each in the place of a %s, are highlighted as upstream highlights them.
func Textf(format string, args ...any) Text { return textf(format, args...) }

// Trace adds a line of context to an error, which clients are shown apart from the message.
func Trace(trace string, err error) error { return &traceError{trace, err} }

// ErrorMessage is how an error appears in a client's log.
func ErrorMessage(err error) string { return errorLog(Coloured(err)) }

// Warning is how a warning appears in a client's log.
func Warning(text string) string { return warning(textf("%s", plain(text))) }
