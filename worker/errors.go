package worker

import (
	"context"
	"errors"
	"io"
	"regexp"
	"strings"
	"syscall"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
)

// interrupted is upstream's text for work that was cut short.
const interrupted = "interrupted by the user"

// traced is an error that carries context lines of its own.
type traced interface{ Traces() []string }

// coloured is an error that knows which parts of its text to mark.
type coloured interface{ Coloured() string }

// exiting is an error with an exit status for clients before 1.26.
type exiting interface{ ExitStatus() uint64 }

// wireError turns an error into what clients are sent. Package worker is the
// only place that does so.
func wireError(err error) *protocol.Error {
	var ready *protocol.Error
	if errors.As(err, &ready) {
		return ready
	}
	e := &protocol.Error{Level: activity.Error, Message: highlight(messageOf(err)), Status: 1}
	var t traced
	if errors.As(err, &t) {
		for _, trace := range t.Traces() {
			e.Traces = append(e.Traces, highlight(trace))
		}
	}
	var x exiting
	if errors.As(err, &x) {
		e.Status = x.ExitStatus()
	}
	return e
}

func messageOf(err error) string {
	var own coloured
	switch {
	case errors.As(err, &own):
		return own.Coloured()
	case errors.Is(err, context.Canceled):
		return interrupted
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "unexpected end-of-file"
	}
	return err.Error()
}

// quoted finds the arguments of a message.
var quoted = regexp.MustCompile(`'([^'\n]+)'`)

// highlight marks quoted arguments in magenta, as upstream does with every
// argument of a message (libutil/fmt.hh, Magenta); clients take the marks away
// where their output is no terminal. A text that has marks keeps them.
func highlight(text string) string {
	if strings.Contains(text, "\x1b[") {
		return text
	}
	return quoted.ReplaceAllString(text, "'\x1b[35;1m$1\x1b[0m'")
}

// isHangUp tells the errors of a socket whose peer is gone.
func isHangUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
