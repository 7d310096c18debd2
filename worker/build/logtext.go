package build

import (
	"io"

	"nixdaemon/protocol/activity"
)

// LogText turns what a builder prints into the lines that clients show: without its messages to the daemon, and as a
// terminal would leave lines that were overwritten. Close passes on a last line without an end. What Write and Close return
// are the errors of w.
func LogText(w io.Writer) io.WriteCloser {
	sink := &lineSink{w: w}
	return &logText{sink: sink, lines: &logLines{sink: sink, id: 1, messages: &jsonMessages{sink: activity.Discard{}, id: 1, ids: new(activity.IDs)}}}
}

type logText struct {
	sink  *lineSink
	lines *logLines
}

func (t *logText) Write(p []byte) (int, error) {
	if t.sink.err != nil {
		return 0, t.sink.err
	}
	n, _ := t.lines.Write(p)
	return n, t.sink.err
}

func (t *logText) Close() error {
	t.lines.end()
	return t.sink.err
}

// lineSink writes lines.
type lineSink struct {
	activity.Discard
	w   io.Writer
	err error
}

// Result writes a line.
func (s *lineSink) Result(_ activity.ID, kind activity.ResultType, fields []activity.Field) {
	if kind == activity.BuildLogLine && s.err == nil {
		_, s.err = io.WriteString(s.w, fields[0].Text+"\n")
	}
}
