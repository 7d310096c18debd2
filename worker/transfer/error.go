package transfer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Kind says what a failure means to the caller.
type Kind uint8

// The kinds, as upstream distinguishes them (libstore/filetransfer.hh).
const (
	Misc        Kind = iota // will not heal
	NotFound                // there is no such thing (404, 410, no such file)
	Forbidden               // not for us (401, 403, 407)
	Transient               // might heal; attempts are used up
	Interrupted             // the caller's context ended
)

// Errors that an [*Error] is, by its kind.
var (
	ErrNotFound  = errors.New("not found")
	ErrForbidden = errors.New("forbidden")
)

// Error is why a request failed.
type Error struct {
	Kind Kind
	// Status is that of HTTP, 0 if there was none.
	Status int
	// Curl is libcurl's number for the condition, 0 if only the status is bad.
	Curl int
	// Body is the beginning of what the server said about it.
	Body string

	parts []part // of the text
	cause error
}

// part is a piece of a message. Arguments are magenta in what clients see (libutil/fmt.hh).
type part struct {
	text     string
	argument bool
}

// messagef puts the arguments in the place of each %s of the format. Those of type verbatim are not marked.
func messagef(format string, args ...any) []part {
	var parts []part
	for _, arg := range args {
		before, after, _ := strings.Cut(format, "%s")
		_, plain := arg.(verbatim)
		parts = append(parts, part{before, false}, part{fmt.Sprint(arg), !plain})
		format = after
	}
	return append(parts, part{format, false})
}

type verbatim string

// Error is the message in plain text.
func (e *Error) Error() string {
	var b strings.Builder
	for _, p := range e.parts {
		b.WriteString(p.text)
	}
	return b.String()
}

// Coloured is the message with its arguments marked as upstream's are.
func (e *Error) Coloured() string {
	var b strings.Builder
	for _, p := range e.parts {
		if p.argument {
			b.WriteString("\x1b[35;1m" + p.text + "\x1b[0m")
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// Unwrap gives the cause: that of the context for an [Interrupted] request, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Is tells [ErrNotFound] and [ErrForbidden] by the kind.
func (e *Error) Is(target error) bool {
	return target == ErrNotFound && e.Kind == NotFound || target == ErrForbidden && e.Kind == Forbidden
}

// fault is why an attempt failed.
type fault struct {
	status  int // HTTP status, 0 if there was none
	code    curlCode
	detail  string
	body    string // what the server had to say
	noRange bool   // the server does not resume
	after   int64  // milliseconds that the server wants us to wait
	cause   error  // if it is not the network's: ends the request as it is
}

func (f *fault) Error() string {
	if f.cause != nil {
		return f.cause.Error()
	}
	if f.status != 0 && f.code == curlOK {
		return "HTTP error " + strconv.Itoa(f.status)
	}
	return f.code.text() + ": " + f.detail
}

// kind classifies as upstream does (libstore/filetransfer.cc, finish).
func (f *fault) kind() Kind {
	switch s := f.status; {
	case s == 404 || s == 410 || f.code == curlCouldntReadFile:
		return NotFound
	case s == 401 || s == 403 || s == 407:
		return Forbidden
	case s == 408 || s == 429:
		return Transient
	case s >= 400 && s < 500, s == 501, s == 505, s == 511:
		return Misc
	}
	switch f.code {
	case curlUnsupportedProtocol, curlURLMalformat, curlTooManyRedirects, curlBadContentEncoding, curlCACertBadFile,
		curlCertProblem:
		return Misc
	}
	return Transient
}

// maxShownBody is how long a body may be to be shown; pages of HTML are shown anyway.
const maxShownBody = 1024

// failure is the error for the caller.
func (f *fault) failure(r *Request) *Error {
	e := &Error{Kind: f.kind(), Status: f.status, Curl: int(f.code), Body: f.body}
	verb, url := verbatim(r.verb()), Shown(r.URL)
	if f.status == 0 {
		e.parts = messagef("unable to %s '%s': %s (%s) %s", verb, url, f.code.text(), int(f.code), f.detail)
	} else {
		why := ""
		if f.code != curlOK {
			why = " (curl error: " + f.code.text() + ")"
		}
		e.parts = messagef("unable to %s '%s': HTTP error %s%s", verb, url, f.status, why)
	}
	if f.body != "" && (len(f.body) < maxShownBody || strings.Contains(f.body, "<html>")) {
		e.parts = append(e.parts, part{"\n\nresponse body:\n\n", false}, part{strings.TrimRight(f.body, " \n\r\t"), true})
	}
	return e
}

// failf is a failure that no server has a part in.
func failf(format string, args ...any) *Error { return &Error{parts: messagef(format, args...)} }

// interrupted is the failure of a request whose context ended.
func interrupted(r *Request, cause error) *Error {
	return &Error{Kind: Interrupted, parts: messagef("%s of '%s' was interrupted", verbatim(r.noun()), Shown(r.URL)), cause: cause}
}
