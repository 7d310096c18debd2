package remote

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"sync"

	"nixdaemon/protocol/activity"
	"nixdaemon/worker/build"
)

// speaker is a log in upstream's JSON form, as whoever has started a build hook reads it (libutil/logging.cc,
// JSONLogger).
type speaker struct {
	verbosity activity.Level // what is less important is not said

	mu  sync.Mutex
	to  io.Writer
	err error // of the first write that failed
}

var _ build.RemoteLog = (*speaker)(nil)

// Each kind of message, with its fields in the order of their names, as upstream writes them.
type (
	spokenMessage struct {
		Action string         `json:"action"`
		Level  activity.Level `json:"level"`
		Msg    string         `json:"msg"`
	}
	spokenStart struct {
		Action string         `json:"action"`
		Fields []any          `json:"fields,omitempty"`
		ID     activity.ID    `json:"id"`
		Level  activity.Level `json:"level"`
		Parent activity.ID    `json:"parent"`
		Text   string         `json:"text"`
		Type   activity.Type  `json:"type"`
	}
	spokenStop struct {
		Action string      `json:"action"`
		ID     activity.ID `json:"id"`
	}
	spokenResult struct {
		Action string              `json:"action"`
		Fields []any               `json:"fields"`
		ID     activity.ID         `json:"id"`
		Type   activity.ResultType `json:"type"`
	}
)

func (s *speaker) say(message any) {
	var line bytes.Buffer
	line.WriteString("@nix ")
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(message); err == nil {
		s.line(line.String())
	}
}

// line says what is no message; it ends in a newline.
func (s *speaker) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		_, s.err = io.WriteString(s.to, text)
	}
}

func anyFields(fields []activity.Field) []any {
	all := make([]any, len(fields))
	for i, f := range fields {
		if f.IsText {
			all[i] = f.Text
		} else {
			all[i] = f.Number
		}
	}
	return all
}

// Message implements build.RemoteLog.
func (s *speaker) Message(level activity.Level, text string) {
	if level <= s.verbosity {
		s.say(spokenMessage{"msg", level, text})
	}
}

// Start implements build.RemoteLog.
func (s *speaker) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	s.say(spokenStart{"start", anyFields(fields), id, level, parent, text, kind})
}

// Stop implements build.RemoteLog.
func (s *speaker) Stop(id activity.ID) { s.say(spokenStop{"stop", id}) }

// Result implements build.RemoteLog.
func (s *speaker) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	s.say(spokenResult{"result", anyFields(fields), id, kind})
}

// Line implements build.RemoteLog: a message in this form is passed on as it is.
func (s *speaker) Line(line string) bool {
	ok := strings.HasPrefix(line, "@nix ")
	if ok {
		s.line(line + "\n")
	}
	return ok
}
