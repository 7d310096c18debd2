package wire

import "unsafe"

const (
	// claimStep is what a string may allocate before its bytes arrive.
	claimStep = 64 << 10

	// elementCost is what one element of a list is charged against the budget besides its own bytes:
	// the size of a string header, and no more than twice what the element takes on the wire.
	elementCost = 16
)

// SetBudget bounds the memory that strings and lists read from now on may claim together, in bytes.
// Call it at the start of each request. Until the first call there is no bound.
func (r *Reader) SetBudget(n int64) {
	r.budget, r.limited = n, true
	r.Release()
}

// Charge takes n bytes from the budget, for what a caller allocates on the peer's word.
// It returns [ErrBudget] if they are not left, and [ErrMemory] if the [Ledger] does not have them.
func (r *Reader) Charge(n uint64) error {
	if !r.limited {
		return nil
	}
	if r.budget < 0 || n > uint64(r.budget) {
		return ErrBudget
	}
	if err := r.claims.charge(int64(n)); err != nil {
		return err
	}
	r.budget -= int64(n)
	return nil
}

// String reads a string of at most limit bytes.
func (r *Reader) String(limit int) (string, error) {
	n, err := r.length(limit)
	if err != nil {
		return "", err
	}
	if n <= r.size-8 {
		return r.shortString(n)
	}
	b, err := r.payload(n)
	return unsafe.String(unsafe.SliceData(b), len(b)), err // nothing else refers to b
}

// Bytes reads a string of at most limit bytes into fresh memory.
func (r *Reader) Bytes(limit int) ([]byte, error) {
	n, err := r.length(limit)
	if err != nil {
		return nil, err
	}
	return r.payload(n)
}

func (r *Reader) length(limit int) (int, error) {
	n, err := r.Uint64()
	if err != nil {
		return 0, err
	}
	if limit < 0 || n > uint64(limit) {
		return 0, ErrStringTooLong
	}
	return int(n), r.Charge(n)
}

// shortString takes a string that fits the buffer out of it with a single copy.
func (r *Reader) shortString(n int) (string, error) {
	b, err := r.Peek(padded(n))
	if err != nil {
		return "", inside(err)
	}
	if !isZero(b[n:]) {
		return "", ErrPadding
	}
	s := string(b[:n])
	r.start += len(b)
	return s, nil
}

// payload reads n bytes and their padding. Memory grows with what has arrived, to at most twice that.
func (r *Reader) payload(n int) ([]byte, error) {
	b := make([]byte, min(n, claimStep))
	for got := 0; ; {
		if err := r.readFull(b[got:]); err != nil {
			return nil, err
		}
		if got = len(b); got == n {
			return b, r.padding(n)
		}
		grown := make([]byte, min(n, 2*got))
		copy(grown, b)
		b = grown
	}
}

func (r *Reader) padding(n int) error {
	b, err := r.Peek(padded(n) - n)
	if err != nil {
		return inside(err)
	}
	if !isZero(b) {
		return ErrPadding
	}
	r.start += len(b)
	return nil
}

// Count reads the number of elements of a list, at most limit.
// Callers append while elements arrive, or allocate no more than [Capacity] says.
func (r *Reader) Count(limit int) (int, error) {
	n, err := r.Uint64()
	if err != nil {
		return 0, err
	}
	if limit < 0 || n > uint64(limit) {
		return 0, Errorf("list of %d elements exceeds the limit of %d", n, limit)
	}
	return int(n), r.Charge(n * elementCost)
}

// Capacity returns how many elements to allocate for a list of claimed length n before the first arrives.
func Capacity(n int) int { return min(n, 1024) }

// Strings reads a list of at most maxCount strings of at most maxLen bytes each.
func (r *Reader) Strings(maxCount, maxLen int) ([]string, error) {
	n, err := r.Count(maxCount)
	if err != nil || n == 0 {
		return nil, err
	}
	list := make([]string, 0, Capacity(n))
	for range n {
		s, err := r.String(maxLen)
		if err != nil {
			return nil, inside(err)
		}
		list = append(list, s)
	}
	return list, nil
}

// padded rounds n up to a multiple of 8.
func padded(n int) int { return (n + 7) &^ 7 }

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
