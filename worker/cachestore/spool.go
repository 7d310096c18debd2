package cachestore

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// inMemory is how much of an object is kept in memory before it goes to a file.
const inMemory = 256 << 10

// spool is an object to be: bytes that are written once, then read as often as an upload is tried.
type spool struct {
	small bytes.Buffer
	file  *os.File // nil as long as all is in memory; it has no name any more
	size  int64
}

// Write adds to the object.
func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && s.small.Len()+len(p) > inMemory {
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	var n int
	var err error
	if s.file != nil {
		n, err = s.file.Write(p)
	} else {
		n, err = s.small.Write(p)
	}
	s.size += int64(n)
	return n, err
}

func (s *spool) spill() error {
	f, err := os.CreateTemp("", "nix-daemon-")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := f.Write(s.small.Bytes()); err != nil {
		return errors.Join(err, f.Close())
	}
	s.file, s.small = f, bytes.Buffer{}
	return nil
}

// open gives the whole and its size, any number of times.
func (s *spool) open() (io.ReadCloser, int64, error) {
	if s.file != nil {
		return io.NopCloser(io.NewSectionReader(s.file, 0, s.size)), s.size, nil
	}
	return io.NopCloser(bytes.NewReader(s.small.Bytes())), s.size, nil
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
