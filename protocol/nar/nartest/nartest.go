// Package nartest makes archives for tests.
package nartest

import (
	"bytes"
	"errors"
	"strings"

	"nixdaemon/protocol/nar"
)

// File is the archive of a file that is not executable.
func File(contents string) []byte {
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	if err := errors.Join(w.Regular("", false, uint64(len(contents)), strings.NewReader(contents)), w.Close()); err != nil {
		panic(err) // memory takes all, and the size is that of the contents
	}
	return b.Bytes()
}
