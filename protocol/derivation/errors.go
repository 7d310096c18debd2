package derivation

import "fmt"

// FormatError says why a text is no derivation. The texts are upstream's
// (libstore/derivations.cc).
type FormatError struct{ text string }

func (e *FormatError) Error() string { return e.text }

func badFormat(format string, args ...any) error {
	return &FormatError{fmt.Sprintf(format, args...)}
}

// TraceError adds to an error what was being done. Its text is the error's
// own: clients get the trace apart from the message.
type TraceError struct {
	Trace string
	Err   error
}

func (e *TraceError) Error() string { return e.Err.Error() }

// Unwrap gives the error without this trace.
func (e *TraceError) Unwrap() error { return e.Err }
