package db

import (
	"errors"
	"fmt"
	"strings"

	"zombiezen.com/go/sqlite"
)

var (
	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("database is closed")
	// ErrReadOnly is returned by Write on a database opened with Options.ReadOnly.
	ErrReadOnly = errors.New("database is opened read-only")
)

// NotValidError says that a path which a change needs has no row. Its text is upstream's.
type NotValidError struct{ Path string }

func (e *NotValidError) Error() string { return fmt.Sprintf("path '%s' is not valid", e.Path) }

// ReferrersError says that a path cannot be invalidated because other valid paths refer to it.
type ReferrersError struct {
	Path      string
	Referrers []string // never empty; without Path itself
}

func (e *ReferrersError) Error() string {
	return fmt.Sprintf("cannot delete path '%s' because it is in use by '%s'", e.Path, strings.Join(e.Referrers, "', '"))
}

// PanicError is what Write returns when the caller's function panicked. Its changes are rolled back.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic in database change: %v", e.Value) }

// TracedError adds upstream's explanation to an error of Open that has an everyday cause.
type TracedError struct {
	Trace string // shown before the error's own text
	Err   error
}

func (e *TracedError) Error() string { return e.Err.Error() }

// Unwrap returns the error that the trace explains.
func (e *TracedError) Unwrap() error { return e.Err }

// sysError joins a message and an operating system error in upstream's manner, which capitalises the latter.
func sysError(text string, err error) error { return &systemError{text, err} }

type systemError struct {
	text string
	err  error
}

func (e *systemError) Error() string {
	cause := e.err.Error()
	return e.text + ": " + strings.ToUpper(cause[:1]) + cause[1:]
}

func (e *systemError) Unwrap() error { return e.err }

func isBusy(err error) bool {
	code := sqlite.ErrCode(err).ToPrimary()
	return code == sqlite.ResultBusy || code == sqlite.ResultProtocol
}

func isConstraint(err error) bool {
	return sqlite.ErrCode(err).ToPrimary() == sqlite.ResultConstraint
}
