package roots

import (
	"bytes"
	"iter"
)

// lsofNames are the absolute file names in what "lsof -F n" prints: a line for each field, with a letter before it.
func lsofNames(out []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for line := range bytes.Lines(out) {
			name, ok := bytes.CutPrefix(bytes.TrimRight(line, "\n"), []byte("n"))
			if ok && bytes.HasPrefix(name, []byte("/")) && !yield(name) {
				return
			}
		}
	}
}
