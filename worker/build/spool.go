package build

import (
	"path/filepath"
	"slices"
	"sync"
)

const (
	// mostSpooled bounds what all transcripts have in files together, in bytes, and mostEach what one has of that.
	mostSpooled = 1 << 30
	mostEach    = 256 << 20
	// mostLingering bounds how many files there are of builds that have ended, for readers that are slow.
	mostLingering = 32
)

// spool is where the transcripts of a scheduler have their files.
type spool struct {
	dir string

	mu    sync.Mutex
	taken int64
	// lingering have ended, but somebody may still read them, the oldest first.
	lingering []lingering
}

// lingering is a transcript with what it takes.
type lingering struct {
	*transcript
	bytes int64
}

// newSpool gives none without a directory.
func newSpool(dir string) *spool {
	if dir == "" {
		return nil
	}
	return &spool{dir: filepath.Clean(dir)}
}

// take grants n bytes to a transcript that has so many already, or none at all.
func (s *spool) take(n, has int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > mostEach-has || n > mostSpooled-s.taken {
		return false
	}
	s.taken += n
	return true
}

// give takes back what a transcript has.
func (s *spool) give(t *transcript, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken -= n
	s.lingering = slices.DeleteFunc(s.lingering, func(l lingering) bool { return l.transcript == t })
}

// linger notes a transcript that has ended while somebody reads it, and gives those that are to expire since there are too
// many, or they take half of all: what runs is more interesting. Its mutex is held, those of the others must not be.
func (s *spool) linger(t *transcript, bytes int64) (expired []*transcript) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lingering = append(s.lingering, lingering{t, bytes})
	count, sum := 0, int64(0)
	for _, l := range slices.Backward(s.lingering) {
		if count, sum = count+1, sum+l.bytes; count > mostLingering || sum > mostSpooled/2 {
			expired = append(expired, l.transcript)
		}
	}
	return expired
}
