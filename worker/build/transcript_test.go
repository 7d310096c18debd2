package build

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// readAll reads a log to its end.
func readAll(ctx context.Context, r *LogReader) (string, error) {
	var all bytes.Buffer
	buf := make([]byte, 1000)
	for {
		n, err := r.Read(ctx, buf)
		all.Write(buf[:n])
		if err == io.EOF {
			return all.String(), r.Close()
		}
		if err != nil {
			return all.String(), err
		}
	}
}

// TestTranscript reads along from several places while it grows beyond what is kept in memory.
func TestTranscript(t *testing.T) {
	dir := t.TempDir()
	tr := &transcript{spool: newSpool(dir)}
	data := make([]byte, 5*transcriptHead)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	var readers sync.WaitGroup
	for rest := data; len(rest) > 0; {
		if rng.IntN(4) == 0 {
			r := tr.open()
			readers.Go(func() {
				if got, err := readAll(t.Context(), r); err != nil || got != string(data) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
			})
		}
		n := min(len(rest), 1+rng.IntN(9000))
		if _, err := tr.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	tr.end()
	readers.Wait()
	if tr.rest != nil || tr.open() != nil {
		t.Error("it does not end")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestTranscriptWithoutDisk keeps what it can.
func TestTranscriptWithoutDisk(t *testing.T) {
	tr := &transcript{spool: newSpool(filepath.Join(t.TempDir(), "missing"))}
	r := tr.open()
	long := strings.Repeat("x", 2*transcriptHead)
	if n, err := tr.Write([]byte(long)); n != len(long) || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	got, err := readAll(t.Context(), r)
	if !errors.Is(err, ErrLogLost) || got != long[:transcriptHead] {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	tr.end()
}

func TestTranscriptGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := new(transcript).open()
	if _, err := r.Read(ctx, make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFollowLog(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.LogSpool = t.TempDir() })
	release := filepath.Join(t.TempDir(), "go-on")
	drv := w.drv("talker", `echo first; echo '@nix {"action":"setPhase","phase":"x"}'; printf 'over\rdone\n'
until [ -e `+release+` ]; do sleep 0.05; done; printf last; echo > $out`)
	done := w.request(w.ctx, drv)
	w.until(func() bool { b := w.sched.Status().Builds; return len(b) == 1 && b[0].LastLine == "done" })
	if b := w.sched.Status().Builds[0]; b.PID == 0 {
		t.Errorf("no process: %+v", b)
	}
	if _, err := w.sched.FollowLog(1, "mallory", true); !errors.Is(err, ErrNotYours) {
		t.Errorf("a stranger reads along: %v", err)
	}
	if _, err := w.sched.FollowLog(2, "alice", false); !errors.Is(err, ErrNoBuild) {
		t.Errorf("what is not: %v", err)
	}
	r, err := w.sched.FollowLog(1, "alice", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(release, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	raw, err := readAll(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	lines := LogText(&text)
	if _, err := io.WriteString(lines, raw); err != nil {
		t.Fatal(err)
	}
	if err := lines.Close(); err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(w.log.lines(), "\n") + "\n"; text.String() != want || !strings.HasPrefix(want, "first\n") {
		t.Errorf("followed %q, the client was shown %q", text.String(), want)
	}
	stored, err := w.store.OpenBuildLog(drv)
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	if kept, err := io.ReadAll(stored); err != nil || string(kept) != raw {
		t.Errorf("stored %q, %v; followed %q", kept, err, raw)
	}
}

// brokenWriter fails.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestLogTextFails(t *testing.T) {
	lines := LogText(brokenWriter{})
	if _, err := io.WriteString(lines, "a\nb\n"); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if err := lines.Close(); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func BenchmarkTranscript(b *testing.B) {
	chunk := bytes.Repeat([]byte("x"), 8<<10)
	tr := &transcript{spool: newSpool(b.TempDir())}
	defer tr.end()
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if tr.size > 64<<20 {
			tr.size = transcriptHead
		}
		tr.Write(chunk)
	}
}
