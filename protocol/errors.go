package protocol

import (
	"fmt"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/wire"
)

// maxTraces bounds the context lines of an error.
const maxTraces = 1024

// Error is a failure as the protocol carries it.
type Error struct {
	Level activity.Level
	// Message may span lines.
	Message string
	// Traces is context, innermost last, as upstream prints it after "… ".
	Traces []string
	// Status is the exit status for clients before 26, 1 unless a build failed.
	Status uint64
}

// Error gives the message.
func (e *Error) Error() string { return e.Message }

// Error writes an error frame:
//
//	(26) "Error", level, "Error", message, 0, count, then 0 and a text each
//	     message, exit status
func (w *Writer) Error(e *Error) {
	w.Frame(FrameError)
	if !w.Version.AtLeast(26) {
		w.String(e.Message)
		w.Uint64(max(e.Status, 1))
		return
	}
	w.String("Error")
	w.Uint64(uint64(e.Level))
	w.String("Error") // once the exception's name
	w.String(e.Message)
	w.Uint64(0) // no position
	w.Uint64(uint64(len(e.Traces)))
	for _, trace := range e.Traces {
		w.Uint64(0) // no position
		w.String(trace)
	}
}

// Error reads what follows the tag of an error frame.
func (r *Reader) Error() (*Error, error) {
	if !r.Version.AtLeast(26) {
		return r.oldError()
	}
	kind, err := r.Text()
	if err != nil {
		return nil, err
	}
	if kind != "Error" {
		return nil, wire.Errorf("unexpected error type '%s'", kind)
	}
	level, err := r.Uint32()
	if err != nil {
		return nil, err
	}
	if _, err := r.Text(); err != nil { // once the exception's name
		return nil, err
	}
	e := &Error{Level: activity.Level(level), Status: 1}
	if e.Message, err = r.String(wire.MaxString); err != nil {
		return nil, err
	}
	if err := r.noPosition(); err != nil {
		return nil, err
	}
	return e, r.traces(e)
}

func (r *Reader) oldError() (*Error, error) {
	message, err := r.String(wire.MaxString)
	if err != nil {
		return nil, err
	}
	status, err := r.Uint32()
	return &Error{Message: message, Status: uint64(status)}, err
}

func (r *Reader) traces(e *Error) error {
	n, err := r.Count(maxTraces)
	if err != nil {
		return err
	}
	for range n {
		if err := r.noPosition(); err != nil {
			return err
		}
		text, err := r.String(wire.MaxString)
		if err != nil {
			return err
		}
		e.Traces = append(e.Traces, text)
	}
	return nil
}

func (r *Reader) noPosition() error {
	havePosition, err := r.Uint64()
	if err == nil && havePosition != 0 {
		err = wire.Errorf("deserializing error positions is not supported")
	}
	return err
}

// UnknownOp is the error for a number that is no request.
func UnknownOp(op Op) error { return fmt.Errorf("invalid operation %d", uint64(op)) }
