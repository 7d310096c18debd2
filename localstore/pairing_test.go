package localstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// pairingOf is one for so many workers, of which so many do not wait, whatever the processor can do.
func pairingOf(workers, alone int) *pairing { return &pairing{workers: workers, alone: alone} }

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// TestPairing: whoever hashes with whom, every sum is right, and nobody waits for ever.
func TestPairing(t *testing.T) {
	data := noise(1, 1<<20)
	for _, workers := range []int{1, 2, 4, 7} {
		p := pairingOf(workers, max(1, workers/2))
		var all sync.WaitGroup
		for w := range workers {
			all.Go(func() {
				defer p.change(-1)
				r := rand.New(rand.NewPCG(uint64(w), 3))
				for range 10 {
					sum, alone := sha256.New(), sha256.New()
					for range 1 + r.IntN(3) {
						from := r.IntN(len(data))
						piece := data[from : from+r.IntN(len(data)-from)]
						alone.Write(piece)
						if err := p.write(sum, piece); err != nil {
							t.Errorf("hash: %v", err)
						}
					}
					if !bytes.Equal(sum.Sum(nil), alone.Sum(nil)) {
						t.Errorf("the sum is %x, want %x", sum.Sum(nil), alone.Sum(nil))
					}
				}
			})
		}
		all.Wait()
		if p.workers != 0 || p.waiting != nil {
			t.Errorf("%d workers are left, and %v waits", p.workers, p.waiting)
		}
	}
}

// await waits until somebody waits to be paired.
func (p *pairing) await() {
	for {
		p.mu.Lock()
		waits := p.waiting != nil
		p.mu.Unlock()
		if runtime.Gosched(); waits {
			return
		}
	}
}

// TestPairingLeaves: who waits for a second goes on alone once too few are left to come.
func TestPairingLeaves(t *testing.T) {
	p := pairingOf(2, 1)
	data := noise(2, 2*pairFrom)
	done := make(chan [32]byte)
	go func() {
		sum := sha256.New()
		if err := p.write(sum, data); err != nil {
			t.Errorf("hash: %v", err)
		}
		done <- [32]byte(sum.Sum(nil))
	}()
	p.await()
	err := p.away(func() error {
		if got := <-done; got != sha256.Sum256(data) {
			t.Errorf("the sum is %x", got)
		}
		return errStopped
	})
	if err != errStopped || p.workers != 2 {
		t.Errorf("%v, %d workers", err, p.workers)
	}
}

var errStopped = errors.New("stopped")

// TestPairingFaults: a file that is cut off while it is hashed with another is told to both.
func TestPairingFaults(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 4 * pairFrom
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	if err := f.Truncate(size / 2); err != nil {
		t.Fatal(err)
	}
	for _, first := range []bool{true, false} {
		p := pairingOf(2, 1)
		one, two := mapped, noise(3, size)
		if !first {
			one, two = two, one
		}
		done := make(chan error)
		go func() { done <- p.write(sha256.New(), one) }()
		p.await()
		if err := p.write(sha256.New(), two); !errors.Is(err, errTogether) {
			t.Errorf("the second one's error is %v", err)
		}
		if err := <-done; !errors.Is(err, errTogether) {
			t.Errorf("the first one's error is %v", err)
		}
	}
}

// complaints keeps what is told of errors.
type complaints struct {
	activity.Discard
	mu   sync.Mutex
	text []string
}

func (c *complaints) Message(level activity.Level, text string) {
	if level != activity.Error {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, text)
}

// TestVerifyPairs: of many large paths, which are hashed two at a time, exactly those are found that are not right.
func TestVerifyPairs(t *testing.T) {
	s := open(t, nil)
	var paths []storepath.Path
	for i := range 40 {
		spec := DumpSpec{Name: fmt.Sprintf("large-%d", i), Method: storepath.MethodFlat, Algo: nixhash.SHA256}
		info, err := s.AddDump(context.Background(), spec, bytes.NewReader(noise(byte(i), 60_000+i*9_000)), AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, info.Path)
	}
	wrong := map[int]bool{0: true, 17: true, 39: true}
	for i := range wrong {
		alter(t, s.RealPath(paths[i]))
	}
	var c complaints
	bad, err := s.Verify(context.Background(), VerifyOptions{CheckContents: true, Log: &c})
	if err != nil || !bad || len(c.text) != len(wrong) {
		t.Fatalf("%v, %v, complaints:\n%s", bad, err, strings.Join(c.text, "\n"))
	}
	for i := range wrong {
		if want := fmt.Sprintf("path '%s' was modified!", s.Dir().Print(paths[i])); !strings.Contains(strings.Join(c.text, "\n"), want) {
			t.Errorf("not told: %s", want)
		}
	}
}

// alter changes the last byte of a file.
func alter(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	last[0]++
	if _, e := f.WriteAt(last[:], info.Size()-1); errors.Join(err, e) != nil {
		t.Fatal(errors.Join(err, e))
	}
}
