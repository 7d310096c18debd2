// Package activity names what a long operation tells about itself: log
// messages with a [Level], activities that start and stop and have a [Type]
// and a parent, and results ([ResultType]) of a running activity. A [Sink]
// receives them; the worker protocol carries them to a client, and a build
// replays them to those who joined late.
//
// Numbers and field layouts are upstream's (libutil/logging.hh).
package activity

import (
	"os"
	"sync/atomic"
)

// Level is how important a message is; smaller is more important.
type Level uint64

// The levels, as on the wire.
const (
	Error     Level = 0
	Warn      Level = 1
	Notice    Level = 2
	Info      Level = 3
	Talkative Level = 4
	Chatty    Level = 5
	Debug     Level = 6
	Vomit     Level = 7
)

// Type is the kind of an activity; its comment lists the fields at its start.
type Type uint64

// The kinds of activities.
const (
	Unknown       Type = 0   // free text
	CopyPath      Type = 100 // store path, source store URI, destination store URI
	FileTransfer  Type = 101 // URL
	Realise       Type = 102
	CopyPaths     Type = 103
	Builds        Type = 104
	Build         Type = 105 // derivation path, machine ("" is local), round = 1, rounds = 1
	OptimiseStore Type = 106
	VerifyPaths   Type = 107
	Substitute    Type = 108 // store path, substituter URI
	QueryPathInfo Type = 109 // store path, substituter URI
	PostBuildHook Type = 110 // derivation path
	BuildWaiting  Type = 111 // nothing, or derivation path, resolved derivation path
	FetchTree     Type = 112
)

// ResultType is the kind of a result; its comment lists its fields.
type ResultType uint64

// The kinds of results.
const (
	FileLinked       ResultType = 100 // size in bytes, blocks
	BuildLogLine     ResultType = 101 // line
	UntrustedPath    ResultType = 102 // path
	CorruptedPath    ResultType = 103 // path
	SetPhase         ResultType = 104 // phase
	Progress         ResultType = 105 // done, expected, running, failed
	SetExpected      ResultType = 106 // activity type, expected
	PostBuildLogLine ResultType = 107 // line
	FetchStatus      ResultType = 108 // text
)

// Field is a number or a text.
type Field struct {
	IsText bool
	Number uint64
	Text   string
}

// Number makes a field of a number.
func Number(n uint64) Field { return Field{Number: n} }

// Text makes a field of a text.
func Text(s string) Field { return Field{IsText: true, Text: s} }

// ID tells activities apart, across all processes that a client may hear of.
// Zero is "no activity", the parent of those at the top.
type ID uint64

// IDs gives out activity numbers: a counter behind the process id, so that no
// two daemons' numbers meet (libutil/logging.cc). The zero value is ready.
type IDs struct{ last atomic.Uint64 }

// Next gives a number that was not given before.
func (ids *IDs) Next() ID { return ID(uint64(os.Getpid())<<32 | ids.last.Add(1)&0xffffffff) }

// Sink receives what an operation tells. Its methods may be called from any
// goroutine; they do not block for long and never fail: a sink whose reader
// is gone drops what it is given.
type Sink interface {
	// Message logs one message, without a newline at its end.
	Message(level Level, text string)
	// Start begins an activity. The text may be empty.
	Start(id ID, level Level, kind Type, text string, fields []Field, parent ID)
	// Stop ends an activity.
	Stop(id ID)
	// Result tells something of a running activity.
	Result(id ID, kind ResultType, fields []Field)
}

// Discard is a Sink that drops everything.
type Discard struct{}

// Message drops the message.
func (Discard) Message(Level, string) {}

// Start drops the activity.
func (Discard) Start(ID, Level, Type, string, []Field, ID) {}

// Stop drops the end.
func (Discard) Stop(ID) {}

// Result drops the result.
func (Discard) Result(ID, ResultType, []Field) {}

var _ Sink = Discard{}
