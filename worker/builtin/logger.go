package builtin

import (
	"bytes"
	"encoding/json"
	"io"
	"sync"

	"nixdaemon/protocol/activity"
)

// logger writes what happens as "@nix" lines, the form in which builders log with structure
// (libutil/logging.cc, JSONLogger). It is an [activity.Sink].
type logger struct {
	verbosity uint64
	ids       activity.IDs

	mu sync.Mutex
	w  io.Writer
}

var _ activity.Sink = (*logger)(nil)

// logLine has the keys of all kinds of lines, in upstream's order, which is that of the alphabet.
type logLine struct {
	Action string  `json:"action"`
	Fields []any   `json:"fields,omitempty"`
	ID     *uint64 `json:"id,omitempty"`
	Level  *uint64 `json:"level,omitempty"`
	Msg    *string `json:"msg,omitempty"`
	Parent *uint64 `json:"parent,omitempty"`
	Text   *string `json:"text,omitempty"`
	Type   *uint64 `json:"type,omitempty"`
}

// write never fails: there is nowhere to report it.
func (l *logger) write(line logLine) {
	var b bytes.Buffer
	b.WriteString("@nix ")
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(line); err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.w.Write(b.Bytes())
}

// Message logs one message.
func (l *logger) Message(level activity.Level, text string) {
	n := uint64(level)
	l.write(logLine{Action: "msg", Level: &n, Msg: &text})
}

// Start begins an activity.
func (l *logger) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field,
	parent activity.ID) {
	i, n, k, p := uint64(id), uint64(level), uint64(kind), uint64(parent)
	l.write(logLine{Action: "start", ID: &i, Level: &n, Type: &k, Text: &text, Parent: &p, Fields: values(fields)})
}

// Stop ends an activity.
func (l *logger) Stop(id activity.ID) {
	i := uint64(id)
	l.write(logLine{Action: "stop", ID: &i})
}

// Result tells something of a running activity.
func (l *logger) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	i, k := uint64(id), uint64(kind)
	l.write(logLine{Action: "result", ID: &i, Type: &k, Fields: values(fields)})
}

func (l *logger) warn(text string) {
	l.Message(activity.Warn, ansiMagenta+"warning:"+ansiNormal+" "+text)
}

// debug logs what only those who debug want to know.
func (l *logger) debug(text string) {
	if l.verbosity >= uint64(activity.Debug) {
		l.Message(activity.Debug, text)
	}
}

func values(fields []activity.Field) []any {
	list := make([]any, 0, len(fields))
	for _, f := range fields {
		if f.IsText {
			list = append(list, f.Text)
		} else {
			list = append(list, f.Number)
		}
	}
	return list
}
