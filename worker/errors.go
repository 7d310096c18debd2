package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
)

// Texts that clients see, upstream's to the byte.
const (
	// textInterrupted is for work that was cut short.
	textInterrupted = "interrupted by the user"
	// textEnd is for a client that stops in the middle of a request.
	textEnd = "unexpected end-of-file"
	// textFramesEnd is for an archive that goes on beyond the last frame, and
	// textDumpEnd for one of AddToStore, which upstream reads from memory.
	textFramesEnd refusal = "reached end of FramedSource"
	textDumpEnd   refusal = "end of string reached"
)

// traced is an error that carries context lines of its own and of all below.
type traced interface{ Traces() []string }

// coloured is an error that knows which parts of its text to mark.
type coloured interface{ Coloured() string }

// exiting is an error with an exit status for clients before 1.26.
type exiting interface{ ExitStatus() uint64 }

// refusal is an error whose text has no arguments to be marked.
type refusal string

func (r refusal) Error() string { return string(r) }

// Coloured gives the text as it is.
func (r refusal) Coloured() string { return string(r) }

// errUnknownOp is for a number that is no request.
func errUnknownOp(op protocol.Op) error {
	return refusal(strings.Replace(protocol.UnknownOp(op).Error(), "operation ", "operation "+magenta, 1) + normal)
}

// wireError turns an error into what clients are sent. Package worker is the
// only place that does so.
func wireError(err error) *protocol.Error {
	var ready *protocol.Error
	if errors.As(err, &ready) {
		return ready
	}
	e := &protocol.Error{Level: activity.Error, Message: messageOf(err), Traces: tracesOf(err), Status: 1}
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
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return textInterrupted
	case errors.Is(err, io.ErrUnexpectedEOF):
		return textEnd
	}
	return highlight(err.Error())
}

// tracesOf collects context lines, the outermost first.
func tracesOf(err error) []string {
	var traces []string
	for ; err != nil; err = errors.Unwrap(err) {
		switch e := err.(type) {
		case *derivation.TraceError:
			traces = append(traces, highlight(e.Trace))
		case traced:
			for _, trace := range e.Traces() {
				traces = append(traces, highlight(trace))
			}
			return traces
		}
	}
	return traces
}

// ErrorText gives an error as upstream prints it, and the exit status of a
// program that fails for it.
func ErrorText(err error) (text string, status uint64) {
	e := wireError(err)
	return wholeText(e), max(e.Status, 1)
}

// maxShownTraces is how many context lines upstream prints without
// --show-trace (libutil/error.cc, showErrorInfo).
const maxShownTraces = 4

// wholeText is an error as clients before 1.26 are sent it: as it would be
// printed, with its context lines (libutil/error.cc, showErrorInfo).
func wholeText(e *protocol.Error) string {
	const prefix = red + "error:" + normal + " "
	var text strings.Builder
	for i, trace := range e.Traces {
		if i == maxShownTraces {
			text.WriteString("\n" + magenta + "(stack trace truncated; use '--show-trace' to show the full, detailed trace)" + normal + "\n")
			break
		}
		text.WriteString("\n\u2026 " + trace + "\n")
	}
	if len(e.Traces) > 0 {
		text.WriteString("\n" + prefix)
	}
	text.WriteString(e.Message)
	lines := strings.Split(strings.TrimRight(text.String(), " \n\r\t"), "\n")
	for i, line := range lines {
		indent := prefix
		if i > 0 {
			indent = "       "
		}
		lines[i] = strings.TrimRight(indent+line, " \n\r\t")
	}
	return strings.Join(lines, "\n")
}

// isGone tells the errors of a stream whose peer is gone.
func isGone(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// orderly maps the ways in which clients go away to nil.
func orderly(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isGone(err) {
		return nil
	}
	return err
}

// PlainText is what an error says, without its context and without colours, for
// logs.
func PlainText(err error) string { return escapes().ReplaceAllString(messageOf(err), "") }

// escapes are the sequences that mark parts of texts for terminals.
var escapes = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("\x1b\\[[0-9;]*m") })
