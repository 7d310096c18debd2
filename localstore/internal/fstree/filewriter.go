package fstree

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// minHole is the shortest run of zeros that is left out of a file.
const minHole = 32 << 10

// fileWriter writes a new file from its start, leaving holes where long pieces are zero.
type fileWriter struct {
	fd   int
	at   int64
	hole bool // the last piece was left out
}

func (w *fileWriter) Write(p []byte) (int, error) {
	if len(p) >= minHole && p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1]) {
		w.at += int64(len(p))
		w.hole = true
		return len(p), nil
	}
	w.hole = false
	for rest := p; len(rest) > 0; {
		n, err := unix.Pwrite(w.fd, rest, w.at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return len(p) - len(rest), err
		}
		w.at += int64(n)
		rest = rest[n:]
	}
	return len(p), nil
}

// end gives the file its length if it ends in a hole.
func (w *fileWriter) end() error {
	if !w.hole {
		return nil
	}
	return retry(func() error { return unix.Ftruncate(w.fd, w.at) })
}
