package build

import (
	"bytes"

	"nixdaemon/protocol/activity"
)

// maxLogLine is where a line without an end is cut, so that a builder cannot make us hold more.
const maxLogLine = 64 << 10

// logLines cuts a builder's output into lines and passes them on as results of its Build activity
// (libstore/build/build-log.cc). A carriage return goes back to the start of the line, so that what follows
// overwrites it; before a newline it is part of the line's end, as upstream has it from 2.36 on (2.34 loses the line).
type logLines struct {
	sink     activity.Sink
	id       activity.ID
	messages *jsonMessages

	line   []byte
	column int
	cr     bool // the last byte was a carriage return
}

// Write never fails.
func (l *logLines) Write(data []byte) (int, error) {
	total := len(data)
	for len(data) > 0 {
		i := bytes.IndexAny(data, "\r\n")
		if i < 0 {
			i = len(data)
		}
		if i > 0 {
			l.put(data[:i])
		}
		if i < len(data) {
			l.control(data[i])
			i++
		}
		data = data[i:]
	}
	return total, nil
}

func (l *logLines) control(c byte) {
	if c == '\n' {
		l.cr = false
		l.flush()
		return
	}
	l.goBack()
	l.cr = true
}

// goBack carries out the carriage return that was held back.
func (l *logLines) goBack() {
	if l.cr {
		l.column, l.cr = 0, false
	}
}

func (l *logLines) put(text []byte) {
	l.goBack()
	for len(text) > 0 {
		n := min(len(text), maxLogLine-l.column)
		over := copy(l.line[l.column:], text[:n])
		l.line = append(l.line, text[over:n]...)
		l.column += n
		text = text[n:]
		if l.column == maxLogLine {
			l.flush()
		}
	}
}

// end passes on the last line if it has no end.
func (l *logLines) end() {
	if len(l.line) > 0 {
		l.goBack()
		l.flush()
	}
	l.messages.end()
}

func (l *logLines) flush() {
	line := string(l.line[:l.column])
	l.line, l.column = l.line[:0], 0
	if l.messages.handle(line) {
		return
	}
	l.sink.Result(l.id, activity.BuildLogLine, []activity.Field{activity.Text(line)})
}
