package wire

// Ledger is memory that many readers share. It must be safe for concurrent use.
type Ledger interface {
	// Take asks for n bytes more, and is false if they are not to be had.
	Take(n int64) bool
	// Give returns what was taken.
	Give(n int64)
}

const (
	// FreeClaim is what each request may claim before its reader takes from the ledger: ordinary requests never do.
	FreeClaim = 256 << 10

	// ledgerStep is how much is taken from the ledger at a time.
	ledgerStep = 1 << 20
)

// ErrMemory is returned when a request claims what the [Ledger] does not have.
var ErrMemory error = &Error{"the requests that this daemon works on take all the memory that it has for them; try again later"}

// claims is what a reader has of a ledger.
type claims struct {
	ledger Ledger
	// taken is what the ledger is to have back, covered what of that and of FreeClaim is not used yet.
	taken, covered int64
}

// Share makes the reader take what its requests claim from l too, as far as that is more than [FreeClaim].
// It returns what it took with the next [Reader.SetBudget] and with [Reader.Release], which must come last.
func (r *Reader) Share(l Ledger) {
	r.Release()
	r.claims = claims{ledger: l, covered: FreeClaim}
}

// Ledger is what Share set, or nil.
func (r *Reader) Ledger() Ledger { return r.claims.ledger }

// Release returns to the ledger what the current request has taken.
func (r *Reader) Release() {
	if r.claims.taken > 0 {
		r.claims.ledger.Give(r.claims.taken)
	}
	r.claims.taken, r.claims.covered = 0, FreeClaim
}

// Refund gives n bytes back that were charged, for data that is not held.
func (r *Reader) Refund(n int) {
	if r.limited {
		r.budget += int64(n)
		r.claims.covered += int64(n)
	}
}

func (c *claims) charge(n int64) error {
	if c.ledger == nil {
		return nil
	}
	if n > c.covered {
		more := (n - c.covered + ledgerStep - 1) / ledgerStep * ledgerStep
		if !c.ledger.Take(more) {
			return ErrMemory
		}
		c.taken += more
		c.covered += more
	}
	c.covered -= n
	return nil
}
