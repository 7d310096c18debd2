package localstore

import (
	"hash/maphash"
	"sync"

	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// infoCache remembers what the database said of paths. It never answers what is no longer so:
// it forgets everything when another process has changed the database, and our own changes announce themselves
// before they begin ([infoCache.begin]), so that no answer from before them can arrive after them.
type infoCache struct {
	generation func() uint64
	seed       maphash.Seed
	shards     [cacheShards]cacheShard
}

const cacheShards = 64

// cached is an answer. The zero value says that the path is not valid.
type cached struct {
	valid bool
	info  *pathinfo.Info // nil if only the validity is known
}

// cacheShard holds the newer half of its entries in young. When that is full it becomes old, and what was old
// and was not asked for since is forgotten.
type cacheShard struct {
	mu         sync.Mutex
	young, old map[storepath.Path]cached
	limit      int
	generation uint64
	writers    int    // changes that have begun
	version    uint64 // grows with every change
	// changing says of paths that are being changed how often: 1 for once, below zero for more than one at a time.
	changing map[storepath.Path]int
}

func newInfoCache(size int, generation func() uint64) *infoCache {
	c := &infoCache{generation: generation, seed: maphash.MakeSeed()}
	now := generation()
	for i := range c.shards {
		c.shards[i].limit = max(1, size/cacheShards/2)
		c.shards[i].generation = now
	}
	return c
}

func (c *infoCache) shard(p storepath.Path) *cacheShard {
	return &c.shards[maphash.Comparable(c.seed, p)%cacheShards]
}

// ticket entitles to put what was read after it was handed out.
type ticket struct {
	generation, version uint64
	usable              bool
}

// get looks p up. If it is unknown the caller reads it from the database and gives the ticket to put.
func (c *infoCache) get(p storepath.Path) (cached, bool, ticket) {
	now := c.generation()
	sh := c.shard(p)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.generation != now {
		sh.young, sh.old = nil, nil
		sh.generation = now
	}
	if v, ok := sh.young[p]; ok {
		return v, true, ticket{}
	}
	if v, ok := sh.old[p]; ok {
		sh.insert(p, v)
		return v, true, ticket{}
	}
	return cached{}, false, ticket{generation: now, version: sh.version, usable: sh.writers == 0}
}

// put remembers an answer that the database gave after the ticket, unless it may be outdated already.
func (c *infoCache) put(p storepath.Path, t ticket, v cached) {
	sh := c.shard(p)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if t.usable && sh.generation == t.generation && sh.version == t.version && sh.writers == 0 {
		sh.insert(p, v)
	}
}

func (sh *cacheShard) insert(p storepath.Path, v cached) {
	if len(sh.young) >= sh.limit {
		sh.young, sh.old = nil, sh.young
	}
	if sh.young == nil {
		sh.young = make(map[storepath.Path]cached)
	}
	sh.young[p] = v
}

// begin announces a change of a path; end it.
func (c *infoCache) begin(p storepath.Path) {
	sh := c.shard(p)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.writers++
	sh.version++
	if sh.changing == nil {
		sh.changing = make(map[storepath.Path]int)
	}
	switch n := sh.changing[p]; {
	case n == 0:
		sh.changing[p] = 1
	case n == 1:
		sh.changing[p] = -2
	default:
		sh.changing[p] = n - 1
	}
}

// end forgets a changed path, except that it is valid if that is known. It must come before anybody hears of the change.
func (c *infoCache) end(p storepath.Path, valid bool) {
	if valid {
		c.endAs(p, &cached{valid: true})
	} else {
		c.endAs(p, nil)
	}
}

// endAs is end for who knows what the change has made of the path. That is not remembered if somebody else has changed
// it at the same time: who was first is known to the database alone.
func (c *infoCache) endAs(p storepath.Path, v *cached) {
	now := c.generation()
	sh := c.shard(p)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.writers--
	sh.version++
	delete(sh.young, p)
	delete(sh.old, p)
	n := sh.changing[p]
	if n == 1 || n == -1 {
		delete(sh.changing, p)
	} else {
		sh.changing[p] = n + 1
	}
	if n == 1 && v != nil && sh.generation == now {
		sh.insert(p, *v)
	}
}

// ticket is what get would give if p were unknown.
func (c *infoCache) ticket(p storepath.Path) ticket {
	now := c.generation()
	sh := c.shard(p)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return ticket{generation: now, version: sh.version, usable: sh.writers == 0}
}
