package wire

import (
	"fmt"
	"io"
)

// Error says that input is malformed, as opposed to unreadable. It corresponds to upstream's SerialisationError.
// The position in the stream is lost after it, except within a [FramedReader], which can still be drained.
type Error struct {
	// Text is what a client is shown; upstream's wording where upstream has the same check.
	Text string
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// Errorf makes an [Error] from a format.
func Errorf(format string, args ...any) *Error {
	return &Error{Text: fmt.Sprintf(format, args...)}
}

var (
	// ErrStringTooLong is returned for a string above the caller's limit.
	ErrStringTooLong error = &Error{"string is too long"}

	// ErrPadding is returned when the bytes that fill a string up to a multiple of 8 are not zero.
	ErrPadding error = &Error{"non-zero padding"}

	// ErrBudget is returned when a request claims more memory than [Reader.SetBudget] allows.
	ErrBudget error = &Error{"request is too large"}
)

// inside turns an end of the stream into an unexpected one, for reads after the first byte of a value.
func inside(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
