package dummystore

import (
	"bytes"
	"errors"
	"io"

	"nixdaemon/protocol/wire"
)

const (
	// maxContents bounds, in bytes, what one connection holds.
	maxContents = 256 << 20
	// overhead is what a path counts beside its archive.
	overhead = 1 << 10
	// chargeStep is how much is charged at a time.
	chargeStep = 64 << 10
)

var errFull = errors.New("this connection's store in memory is full")

// charge asks for memory.
func (s *Store) charge(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > maxContents-s.used {
		return errFull
	}
	if s.o.Memory != nil && !s.o.Memory.Take(n) {
		return wire.ErrMemory
	}
	s.used += n
	return nil
}

func (s *Store) discharge(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
	if s.o.Memory != nil {
		s.o.Memory.Give(n)
	}
}

// hold is data in memory that the store is charged for. It is also what an archive is kept in whose metadata follow.
type hold struct {
	s       *Store
	data    bytes.Buffer
	charged int64
}

// Write adds to the data if there is room.
func (h *hold) Write(p []byte) (int, error) {
	if short := overhead + int64(h.data.Len()+len(p)) - h.charged; short > 0 {
		short = (short + chargeStep - 1) / chargeStep * chargeStep
		if err := h.s.charge(short); err != nil {
			return 0, err
		}
		h.charged += short
	}
	return h.data.Write(p)
}

// keep gives the data, for which the store stays charged until it is closed.
func (h *hold) keep() []byte {
	kept := bytes.Clone(h.data.Bytes())
	h.charged -= overhead + int64(len(kept))
	h.drop()
	return kept
}

func (h *hold) drop() {
	h.s.discharge(h.charged)
	h.charged, h.data = 0, bytes.Buffer{}
}

// Archive gives the data from the beginning.
func (h *hold) Archive() (io.Reader, error) { return bytes.NewReader(h.data.Bytes()), nil }

// Close gives the data up.
func (h *hold) Close() error {
	h.drop()
	return nil
}
