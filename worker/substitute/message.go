package substitute

import (
	"errors"
	"strings"

	"nixdaemon/protocol/activity"
)

// Escape sequences of upstream's messages (libutil/ansicolor.hh).
const (
	magenta = "\x1b[35;1m"
	red     = "\x1b[31;1m"
	normal  = "\x1b[0m"
)

// Error is a failure in upstream's words. Its arguments are marked for clients as upstream marks them.
type Error struct {
	text, coloured string
	cause          error // nil for none
}

func (e *Error) Error() string { return e.text }

// Coloured is the text with upstream's escape sequences.
func (e *Error) Coloured() string { return e.coloured }

// Unwrap gives the cause, which is not in the text.
func (e *Error) Unwrap() error { return e.cause }

// errorf makes an Error; every verb of the format is %s.
func errorf(cause error, format string, args ...string) *Error {
	return &Error{fill(format, args, "", ""), fill(format, args, magenta, normal), cause}
}

func fill(format string, args []string, before, after string) string {
	var b strings.Builder
	for _, arg := range args {
		head, tail, _ := strings.Cut(format, "%s")
		b.WriteString(head + before + arg + after)
		format = tail
	}
	b.WriteString(format)
	return b.String()
}

// coloured is the text of any error as a client gets it.
func coloured(err error) string {
	var c interface {
		error
		Coloured() string
	}
	if errors.As(err, &c) && c.Error() == err.Error() {
		return c.Coloured()
	}
	return err.Error()
}

// Warn tells of something that is gone on without.
func Warn(log activity.Sink, err error) { warn(log, err) }

// warn tells of something that is gone on without.
func warn(log activity.Sink, err error) {
	log.Message(activity.Warn, magenta+"warning:"+normal+" "+coloured(err))
}

// logError tells of a failure that does not end the request. Lines after the first are indented as upstream does
// (libutil/error.cc, showErrorInfo).
func logError(log activity.Sink, err error) {
	lines := strings.Split(strings.TrimRight(coloured(err), "\n"), "\n")
	for i := range lines[1:] {
		lines[i+1] = strings.TrimRight("       "+lines[i+1], " \t\r\n")
	}
	log.Message(activity.Error, red+"error:"+normal+" "+strings.Join(lines, "\n"))
}
