package gc

import "sync"

// maxEarlyClaims bounds what is remembered before it is known what matters.
const maxEarlyClaims = 1 << 20

// claims are the paths that processes asked us to keep, and those that are being deleted. Both are known by their hash
// parts: who claims a path also needs its lock file and all else that is named after it.
type claims struct {
	mu      sync.Mutex
	changed sync.Cond // a deletion ended, or one of the fields below changed for good

	keeping  map[string]struct{}
	deleting map[string]int // how many names of that hash part
	// garbage tells whether anything of a hash part may be deleted; nil until that is known.
	garbage func(hashPart string) bool
	closed  bool
}

func newClaims() *claims {
	c := &claims{keeping: make(map[string]struct{}), deleting: make(map[string]int)}
	c.changed.L = &c.mu
	return c
}

// keep adds a root that was there before.
func (c *claims) keep(hashPart string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keeping[hashPart] = struct{}{}
}

// claim adds a new root and returns when it is safe or has been deleted. It is false if the collection is over, which
// then says nothing about the root.
func (c *claims) claim(hashPart string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.garbage == nil && len(c.keeping) >= maxEarlyClaims && !c.closed {
		c.changed.Wait()
	}
	// What is not going to be deleted need not be remembered, so nobody can fill our memory with claims.
	if c.garbage == nil || c.garbage(hashPart) {
		c.keeping[hashPart] = struct{}{}
	}
	for c.deleting[hashPart] > 0 && !c.closed {
		c.changed.Wait()
	}
	return !c.closed
}

// tryClaim is claim for who must not wait. False says nothing about the root, which is to be claimed again.
func (c *claims) tryClaim(hashPart string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed, c.deleting[hashPart] > 0, c.garbage == nil && len(c.keeping) >= maxEarlyClaims:
		return false
	case c.garbage == nil || c.garbage(hashPart):
		c.keeping[hashPart] = struct{}{}
	}
	return true
}

// mayWait tells whether claim would wait.
func (c *claims) mayWait(hashPart string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deleting[hashPart] > 0 || c.garbage == nil && len(c.keeping) >= maxEarlyClaims
}

// planned says what may be deleted from now on.
func (c *claims) planned(garbage func(hashPart string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.garbage = garbage
	c.changed.Broadcast()
}

// begin claims something for deletion, unless it is to be kept. It must be followed by end.
func (c *claims) begin(hashPart string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, kept := c.keeping[hashPart]; kept {
		return false
	}
	c.deleting[hashPart]++
	return true
}

// end says that a deletion is over, or does not happen.
func (c *claims) end(hashPart string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deleting[hashPart]--; c.deleting[hashPart] == 0 {
		delete(c.deleting, hashPart)
	}
	c.changed.Broadcast()
}

// close ends all waiting.
func (c *claims) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.changed.Broadcast()
}

// kept gives the nodes that are kept.
func (c *claims) kept(g *graph) []int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []int32
	for hash := range c.keeping {
		g.rows.WithHashPart(hash, func(n int32) bool { out = append(out, n); return true })
	}
	for p, n := range g.others {
		if _, kept := c.keeping[p.HashPart()]; kept {
			out = append(out, n)
		}
	}
	return out
}
