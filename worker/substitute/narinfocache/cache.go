// Package narinfocache remembers what binary caches have said: their nix-cache-info (a [Store]), their narinfos, and
// their realisations, what they have as well as what they do not have.
//
// A [Cache] is a bounded memory for this process in front of a file that upstream's processes use at the same time:
// binary-cache-v7.sqlite, whose schema, keys and rules of age are those of release 2.34.8
// (libstore/nar-info-disk-cache.cc). Answers about what is there come from memory; that something is not there is read
// from the file each time, since another process may have learnt better. When the file is removed or replaced
// everything is forgotten.
//
// The file is a convenience. Whatever is wrong with it is told to the administrator, once, and the cache goes on in
// memory alone.
package narinfocache

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/storepath"
)

// FileName is what upstream's release 2.34.8 calls the file, in the directory of the user's caches.
const FileName = "binary-cache-v7.sqlite"

const (
	// maxInfos and maxBytes bound the narinfos in memory.
	maxInfos = 65536
	maxBytes = 128 << 20
	// maxAnswer is what a single answer may have: a cache that says more is asked each time. It is far more than any
	// path needs.
	maxAnswer = 2 << 20
)

// Options say where the file is.
type Options struct {
	// Path is the file; "" keeps everything in memory.
	Path string
	// UseWAL is the setting use-sqlite-wal; without it the file is locked as network file systems need it.
	UseWAL bool
	// PositiveTTL and NegativeTTL are the daemon's own settings, for the purge of old rows.
	TTLs TTLs
	// Log receives what is wrong with the file; nil drops it.
	Log func(error)
	// Now is the time; nil is time.Now.
	Now func() time.Time
}

// TTLs say for how many seconds answers count.
type TTLs struct {
	Positive, Negative uint
}

func (t TTLs) of(present bool) uint {
	if present {
		return t.Positive
	}
	return t.Negative
}

// Store is what is known of a binary cache as a whole.
type Store struct {
	Dir           storepath.Dir
	WantMassQuery bool
	Priority      int
}

// key names an answer: a binary cache, and the hash part of a path or the id of a realisation.
type key struct {
	uri, name   string
	realisation bool
}

// answer is what a binary cache said. Both info and content are zero for what it does not have.
type answer struct {
	info    *narinfo.NarInfo
	content string // of a realisation
	time    int64  // in seconds since 1970
}

// bytes is about how much memory an answer takes.
func (a *answer) bytes() int {
	const fixed, perReference, perSignature = 512, 96, 32
	n := fixed + len(a.content)
	if a.info == nil {
		return n
	}
	n += len(a.info.URL) + len(a.info.Compression) + perReference*len(a.info.References)
	for _, ref := range a.info.References {
		n += len(ref.Base())
	}
	for _, sig := range a.info.Sigs {
		n += perSignature + len(sig)
	}
	return n
}

func (a *answer) present() bool { return a.info != nil || a.content != "" }

// fresh tells whether an answer counts for who wants it this young.
func (a *answer) fresh(now int64, ttls TTLs) bool { return a.time > now-int64(ttls.of(a.present())) }

// Cache remembers. Its methods may be called from any goroutine and never fail.
type Cache struct {
	o    Options
	file *file // nil: memory alone

	mu         sync.Mutex
	infos      generations // what is there
	pending    map[key]answer
	stores     map[string]storeAnswer
	generation uint64
	wake       chan struct{} // holds one token when something is pending
	closing    chan struct{}
	writer     sync.WaitGroup

	hits, absent, misses atomic.Uint64
}

// Stats count the questions about narinfos so far: those that were answered
// with one, those with the knowledge that there is none, and those that could
// not be answered.
type Stats struct{ Hits, Absent, Misses uint64 }

// Stats tells how useful the cache was.
func (c *Cache) Stats() Stats {
	return Stats{Hits: c.hits.Load(), Absent: c.absent.Load(), Misses: c.misses.Load()}
}

func (c *Cache) count(info *narinfo.NarInfo, known bool) {
	switch {
	case !known:
		c.misses.Add(1)
	case info == nil:
		c.absent.Add(1)
	default:
		c.hits.Add(1)
	}
}

type storeAnswer struct {
	Store
	time int64
}

// New makes a cache. Close it.
func New(o Options) *Cache {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = func(error) {}
	}
	c := &Cache{o: o, pending: make(map[key]answer), stores: make(map[string]storeAnswer),
		wake: make(chan struct{}, 1), closing: make(chan struct{})}
	if o.Path != "" {
		c.file = &file{path: o.Path, useWAL: o.UseWAL, log: o.Log}
		c.writer.Go(c.write)
	}
	return c
}

// Close writes what is not yet written.
func (c *Cache) Close() error {
	close(c.closing)
	c.writer.Wait()
	if c.file == nil {
		return nil
	}
	return c.file.close()
}

// Generation changes whenever everything was forgotten because the file has been removed or replaced.
func (c *Cache) Generation() uint64 {
	c.look()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// look forgets everything if the file is not the one that it was.
func (c *Cache) look() {
	if c.file == nil || !c.file.replaced() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.infos = generations{}
	clear(c.pending)
	clear(c.stores)
}

// Store gives what is known of a binary cache, if it is not older than that many seconds.
func (c *Cache) Store(uri string, ttl uint) (Store, bool) {
	c.look()
	oldest := c.now() - int64(ttl)
	c.mu.Lock()
	s, ok := c.stores[uri]
	c.mu.Unlock()
	if ok && s.time > oldest {
		return s.Store, true
	}
	if c.file == nil {
		return Store{}, false
	}
	found, ok := c.file.store(uri, oldest)
	return found, ok
}

// SetStore records what a binary cache says of itself.
func (c *Cache) SetStore(uri string, s Store) {
	now := c.now()
	c.mu.Lock()
	c.stores[uri] = storeAnswer{s, now}
	c.mu.Unlock()
	if c.file != nil {
		c.file.setStore(uri, s, now)
	}
}

// Info gives what is known of the path with a hash part: its narinfo, nil for a path that is not there. The narinfo is
// shared: do not modify it.
func (c *Cache) Info(uri, hashPart string, ttls TTLs) (info *narinfo.NarInfo, known bool) {
	defer func() { c.count(info, known) }()
	c.look()
	k := key{uri: uri, name: hashPart}
	now := c.now()
	a, ok := c.remembered(k)
	if ok && a.fresh(now, ttls) {
		return a.info, true
	}
	if c.file == nil {
		return nil, false
	}
	if a, ok = c.file.info(uri, hashPart, now, ttls); !ok {
		return nil, false
	}
	if a.info != nil {
		c.mu.Lock()
		c.infos.put(k, a)
		c.mu.Unlock()
	}
	return a.info, true
}

// SetInfo records a binary cache's answer; nil says that it does not have the path.
func (c *Cache) SetInfo(uri, hashPart string, info *narinfo.NarInfo) {
	c.set(key{uri: uri, name: hashPart}, answer{info: info, time: c.now()})
}

// Realisation gives what is known of an output, by its id "<hash>!<name>": the realisation's JSON, "" for one that is
// not there.
func (c *Cache) Realisation(uri, id string, ttls TTLs) (json string, known bool) {
	c.look()
	now := c.now()
	if a, ok := c.remembered(key{uri, id, true}); ok && a.fresh(now, ttls) {
		return a.content, true
	}
	if c.file == nil {
		return "", false
	}
	a, ok := c.file.realisation(uri, id, now, ttls)
	return a.content, ok
}

// SetRealisation records a binary cache's answer; "" says that it does not know the output.
func (c *Cache) SetRealisation(uri, id, json string) {
	c.set(key{uri, id, true}, answer{content: json, time: c.now()})
}

func (c *Cache) now() int64 { return c.o.Now().Unix() }

// remembered gives what this process knows by itself.
func (c *Cache) remembered(k key) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.pending[k]; ok {
		return a, true
	}
	return c.infos.get(k)
}

func (c *Cache) set(k key, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.bytes() > maxAnswer {
		c.infos.remove(k)
		return
	}
	if c.file == nil || a.info != nil {
		c.infos.put(k, a)
	}
	if c.file == nil {
		return
	}
	if a.info == nil {
		c.infos.remove(k)
	}
	c.pending[k] = a
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// generations is a map that forgets what was not used lately: of two halves the older is dropped when the younger is
// full.
type generations struct {
	young, old map[key]answer
	size       int // bytes that were put into young
}

func (g *generations) get(k key) (answer, bool) {
	if a, ok := g.young[k]; ok {
		return a, true
	}
	a, ok := g.old[k]
	if ok {
		g.put(k, a)
	}
	return a, ok
}

func (g *generations) put(k key, a answer) {
	if len(g.young) >= maxInfos/2 || g.size >= maxBytes/2 || g.young == nil {
		g.young, g.old, g.size = make(map[key]answer), g.young, 0
	}
	g.young[k] = a
	g.size += a.bytes()
}

func (g *generations) remove(k key) {
	delete(g.young, k)
	delete(g.old, k)
}

const (
	// gather is for how long answers wait for company before they are written.
	gather = 20 * time.Millisecond
	// maxBatch bounds one transaction, so that other processes get their turn.
	maxBatch = 2000
)

// write brings what is pending into the file.
func (c *Cache) write() {
	for {
		select {
		case <-c.wake:
		case <-c.closing:
			c.flush()
			return
		}
		timer := time.NewTimer(gather)
		select {
		case <-timer.C:
		case <-c.closing:
			timer.Stop()
		}
		c.flush()
	}
}

// flush writes what is pending. An answer stays where it is found until the file has it.
func (c *Cache) flush() {
	for {
		batch := c.batch()
		if len(batch) == 0 {
			return
		}
		c.file.insert(batch, c.purgeBefore())
		c.mu.Lock()
		for _, e := range batch {
			if c.pending[e.key] == e.answer {
				delete(c.pending, e.key)
			}
		}
		c.mu.Unlock()
	}
}

type entry struct {
	key
	answer
}

func (c *Cache) batch() []entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	var batch []entry
	for k, a := range c.pending {
		if len(batch) == maxBatch {
			break
		}
		batch = append(batch, entry{k, a})
	}
	return batch
}

// Upstream never purges younger rows than these, so that who asks for fresh answers once does not empty the file for
// all.
const (
	purgePositive = 30 * 24 * 3600
	purgeNegative = 3600
	purgeInterval = 24 * 3600
)

// purge says which rows are too old to keep.
type purge struct{ now, positive, negative int64 }

func (c *Cache) purgeBefore() purge {
	now := c.now()
	return purge{now, now - int64(max(c.o.TTLs.Positive, purgePositive)), now - int64(max(c.o.TTLs.Negative, purgeNegative))}
}

// identity tells a file from the one that replaced it.
func identity(path string) (os.FileInfo, bool) {
	info, err := os.Stat(path)
	return info, err == nil
}
