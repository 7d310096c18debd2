package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// fifo is one that is open for both at once, as a device is: its end is never seen.
func fifo(t *testing.T) int {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestStdioStream moves much to and fro through things that have no end, that wait or not as somebody else has them.
func TestStdioStream(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18)
	for name, waits := range map[string]bool{"waiting": true, "not waiting": false} {
		t.Run(name, func(t *testing.T) {
			there, back := fifo(t), fifo(t)
			for _, fd := range []int{there, back} {
				if err := unix.SetNonblock(fd, !waits); err != nil {
					t.Fatal(err)
				}
			}
			near, err := newStdio(t.Context(), back, there)
			far, err2 := newStdio(t.Context(), there, back)
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			defer near.close()
			defer far.close()
			var work sync.WaitGroup
			work.Go(func() { // says everything again
				if _, err := io.CopyN(far, far, int64(len(data))); err != nil {
					t.Error(err)
				}
			})
			work.Go(func() {
				for rest := data; len(rest) > 0; {
					// Somebody else who has it changes that all the time.
					unix.SetNonblock(there, len(rest)/(1<<16)%2 == 0)
					n, err := near.Write(rest[:min(len(rest), 1<<16)])
					if err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
			})
			got := make([]byte, len(data))
			if _, err := io.ReadFull(near, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("something else came back, %v", err)
			}
			work.Wait()
		})
	}
}

// TestStdioStreamEnds: who reads what never comes, or writes what nobody takes, goes when told to.
func TestStdioStreamEnds(t *testing.T) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	full := fifo(t)
	unix.SetNonblock(full, true)
	s, err := newStdio(ctx, fifo(t), full)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	ends := make(chan error, 2)
	go func() { _, err := s.Read(make([]byte, 1)); ends <- err }()
	go func() { _, err := io.Copy(s, neverending{}); ends <- err }()
	cancel(why)
	for range 2 {
		if err := <-ends; err != why {
			t.Errorf("it ends with %v", err)
		}
	}
}

type neverending struct{}

func (neverending) Read(p []byte) (int, error) { return len(p), nil }

// TestStdioStreamFile reads a file to its end: nothing can wait for that.
func TestStdioStreamFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("contents"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s, err := newStdio(t.Context(), int(in.Fd()), int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if n, err := s.Read(nil); n != 0 || err != nil {
		t.Errorf("nothing read is %d, %v", n, err)
	}
	if got, err := io.ReadAll(s); string(got) != "contents" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	r.Close()
	if _, err := s.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("nobody reads: %v", err)
	}
}
