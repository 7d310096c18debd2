// Package jsonlog writes what an operation tells of itself as lines of JSON, in
// the form of upstream's "internal-json" (libutil/logging.cc, JSONLogger): a
// [Sink] is an activity.Sink that writes each message, start, stop and result
// as one line to a writer.
//
// Keys stand in the order of the alphabet, text is escaped where JSON demands
// it and nowhere else, and what is not UTF-8 becomes U+FFFD, all as upstream's
// library does, so that whoever compares or greps lines finds the same.
package jsonlog

import (
	"io"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"nixdaemon/protocol/activity"
)

// errorPrefix marks messages that are errors, which upstream writes with their
// bare text as well. The lines that follow are indented by its visible width.
const (
	errorPrefix = "\x1b[31;1merror:\x1b[0m "
	errorIndent = "       "
)

// Sink writes lines. Its methods may be called from any goroutine. After the
// first error of the writer it writes no more.
type Sink struct {
	broken func(error)

	mu   sync.Mutex
	w    io.Writer // nil after an error
	line []byte
}

var _ activity.Sink = (*Sink)(nil)

// New makes a Sink. broken, which may be nil, is told of the error that ends
// it, once and without any lock held.
func New(w io.Writer, broken func(error)) *Sink {
	if broken == nil {
		broken = func(error) {}
	}
	return &Sink{w: w, broken: broken}
}

// Message writes {"action":"msg",…}.
func (s *Sink) Message(level activity.Level, text string) {
	s.write(func(b []byte) []byte { return AppendMessage(b, level, text) })
}

// Start writes {"action":"start",…}.
func (s *Sink) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	s.write(func(b []byte) []byte { return AppendStart(b, id, level, kind, text, fields, parent) })
}

// Stop writes {"action":"stop",…}.
func (s *Sink) Stop(id activity.ID) {
	s.write(func(b []byte) []byte { return append(number(append(b, `{"action":"stop","id":`...), uint64(id)), '}') })
}

// Result writes {"action":"result",…}.
func (s *Sink) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	s.write(func(b []byte) []byte { return AppendResult(b, id, kind, fields) })
}

func (s *Sink) write(encode func([]byte) []byte) {
	if err := s.writeLocked(encode); err != nil {
		s.broken(err)
	}
}

func (s *Sink) writeLocked(encode func([]byte) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return nil
	}
	s.line = append(encode(s.line[:0]), '\n')
	_, err := s.w.Write(s.line)
	if err != nil {
		s.w = nil
	}
	const kept = 64 << 10
	if cap(s.line) > kept {
		s.line = nil
	}
	return err
}

// AppendMessage appends the object of a message.
func AppendMessage(b []byte, level activity.Level, text string) []byte {
	b = append(b, `{"action":"msg",`...)
	raw, isError := bare(text)
	if isError {
		b = append(b, `"column":null,"file":null,`...)
	}
	b = number(append(b, `"level":`...), uint64(level))
	if isError {
		b = append(b, `,"line":null`...)
	}
	b = AppendString(append(b, `,"msg":`...), text)
	if isError {
		b = AppendString(append(b, `,"raw_msg":`...), raw)
	}
	return append(b, '}')
}

// bare gives an error's text without what it is shown with.
func bare(text string) (raw string, isError bool) {
	raw, isError = strings.CutPrefix(text, errorPrefix)
	return strings.ReplaceAll(raw, "\n"+errorIndent, "\n"), isError
}

// AppendStart appends the object of an activity's start.
func AppendStart(b []byte, id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) []byte {
	b = values(append(b, `{"action":"start"`...), fields)
	b = number(append(b, `,"id":`...), uint64(id))
	b = number(append(b, `,"level":`...), uint64(level))
	b = number(append(b, `,"parent":`...), uint64(parent))
	b = AppendString(append(b, `,"text":`...), text)
	b = number(append(b, `,"type":`...), uint64(kind))
	return append(b, '}')
}

// AppendResult appends the object of a result.
func AppendResult(b []byte, id activity.ID, kind activity.ResultType, fields []activity.Field) []byte {
	b = values(append(b, `{"action":"result"`...), fields)
	b = number(append(b, `,"id":`...), uint64(id))
	b = number(append(b, `,"type":`...), uint64(kind))
	return append(b, '}')
}

func number(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }

func values(b []byte, fields []activity.Field) []byte {
	if len(fields) == 0 {
		return b
	}
	b = append(b, `,"fields":`...)
	sep := byte('[')
	for _, f := range fields {
		b = append(b, sep)
		if f.IsText {
			b = AppendString(b, f.Text)
		} else {
			b = number(b, f.Number)
		}
		sep = ','
	}
	return append(b, ']')
}

// AppendString appends a JSON string.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			b = appendASCII(b, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		b = utf8.AppendRune(b, r) // an invalid byte is U+FFFD
		i += size
	}
	return append(b, '"')
}

func appendASCII(b []byte, c byte) []byte {
	const hex = "0123456789abcdef"
	switch {
	case c == '"' || c == '\\':
		return append(b, '\\', c)
	case c >= ' ':
		return append(b, c)
	}
	if i := strings.IndexByte("\b\t\n\f\r", c); i >= 0 {
		return append(b, '\\', "btnfr"[i])
	}
	return append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}
