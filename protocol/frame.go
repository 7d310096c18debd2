package protocol

import (
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/wire"
)

// Frame is the tag of what a daemon says while it works on a request.
type Frame uint64

// The tags (libstore/worker-protocol.hh, STDERR_*), each with what follows.
const (
	// FrameNext: a log line, with its newline.
	FrameNext Frame = 0x6f6c6d67
	// FrameRead: the largest number of bytes that the client shall answer with.
	FrameRead Frame = 0x64617461
	// FrameWrite: data for the client.
	FrameWrite Frame = 0x64617416
	// FrameLast: nothing. The reply follows.
	FrameLast Frame = 0x616c7473
	// FrameError: an error. No reply follows.
	FrameError Frame = 0x63787470
	// FrameStartActivity: id, level, type, text, fields, parent.
	FrameStartActivity Frame = 0x53545254
	// FrameStopActivity: id.
	FrameStopActivity Frame = 0x53544f50
	// FrameResult: id, type, fields.
	FrameResult Frame = 0x52534c54
)

// maxFields bounds the fields of an activity; no kind has more than four.
const maxFields = 64

// Frame reads the next tag.
func (r *Reader) Frame() (Frame, error) {
	tag, err := r.Uint64()
	return Frame(tag), err
}

// Frame writes a tag.
func (w *Writer) Frame(f Frame) { w.Uint64(uint64(f)) }

// LogLine writes a log line frame. The text carries its own newline.
func (w *Writer) LogLine(text string) {
	w.Frame(FrameNext)
	w.String(text)
}

// StartActivity writes the start of an activity. Peers before 20 know no
// activities: they get the text as a log line, if there is one.
func (w *Writer) StartActivity(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	w.Frame(FrameStartActivity)
	w.Uint64(uint64(id))
	w.Uint64(uint64(level))
	w.Uint64(uint64(kind))
	w.String(text)
	w.fields(fields)
	w.Uint64(uint64(parent))
}

// StopActivity writes the end of an activity.
func (w *Writer) StopActivity(id activity.ID) {
	w.Frame(FrameStopActivity)
	w.Uint64(uint64(id))
}

// Result writes a result of an activity.
func (w *Writer) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	w.Frame(FrameResult)
	w.Uint64(uint64(id))
	w.Uint64(uint64(kind))
	w.fields(fields)
}

// fields writes a count, then 0 and a number or 1 and a text each.
func (w *Writer) fields(fields []activity.Field) {
	w.Uint64(uint64(len(fields)))
	for _, f := range fields {
		w.Bool(f.IsText)
		if f.IsText {
			w.String(f.Text)
		} else {
			w.Uint64(f.Number)
		}
	}
}

func (r *Reader) fields() ([]activity.Field, error) {
	n, err := r.Count(maxFields)
	if err != nil {
		return nil, err
	}
	fields := make([]activity.Field, n)
	for i := range fields {
		if fields[i], err = r.field(); err != nil {
			return nil, err
		}
	}
	return fields, nil
}

func (r *Reader) field() (activity.Field, error) {
	kind, err := r.Uint32()
	if err != nil {
		return activity.Field{}, err
	}
	switch kind {
	case 0:
		n, err := r.Uint64()
		return activity.Number(n), err
	case 1:
		s, err := r.String(wire.MaxString)
		return activity.Text(s), err
	}
	return activity.Field{}, wire.Errorf("got unsupported field type %x from Nix daemon", kind)
}

// Tell reads what follows the tag of a log line, an activity or a result, and
// passes it on. It returns false for a tag of another kind.
func (r *Reader) Tell(tag Frame, sink activity.Sink) (bool, error) {
	switch tag {
	case FrameNext:
		text, err := r.String(wire.MaxString)
		if err == nil {
			sink.Message(activity.Error, trimNewline(text))
		}
		return true, err
	case FrameStartActivity:
		return true, r.startActivity(sink)
	case FrameStopActivity:
		id, err := r.Uint64()
		if err == nil {
			sink.Stop(activity.ID(id))
		}
		return true, err
	case FrameResult:
		return true, r.result(sink)
	}
	return false, nil
}

func trimNewline(s string) string {
	if len(s) > 0 && s[len(s)-1] == '\n' {
		return s[:len(s)-1]
	}
	return s
}

func (r *Reader) startActivity(sink activity.Sink) error {
	id, err := r.Uint64()
	if err != nil {
		return err
	}
	level, err := r.Uint32()
	if err != nil {
		return err
	}
	kind, err := r.Uint32()
	if err != nil {
		return err
	}
	text, err := r.String(wire.MaxString)
	if err != nil {
		return err
	}
	fields, err := r.fields()
	if err != nil {
		return err
	}
	parent, err := r.Uint64()
	if err == nil {
		sink.Start(activity.ID(id), activity.Level(level), activity.Type(kind), text, fields, activity.ID(parent))
	}
	return err
}

func (r *Reader) result(sink activity.Sink) error {
	id, err := r.Uint64()
	if err != nil {
		return err
	}
	kind, err := r.Uint32()
	if err != nil {
		return err
	}
	fields, err := r.fields()
	if err == nil {
		sink.Result(activity.ID(id), activity.ResultType(kind), fields)
	}
	return err
}
