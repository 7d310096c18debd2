package substitute

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

const (
	// maxOwn bounds the stores that are opened anew for each client.
	maxOwn = 64

	// maxTold bounds the clients that are remembered to know of a store that cannot be opened.
	maxTold = 1000

	// retryAtMost is how long a store that could not be opened is left alone at the most. It is as long as finding that
	// out took: nobody waits more than half of the time.
	retryAtMost = time.Minute
)

// registry holds the stores that are open, by canonical reference.
type registry struct {
	open    func(ctx context.Context, a Asker, ref settings.StoreReference) (Source, error)
	opening flights[storeKey, *opened]

	mu     sync.Mutex
	stores map[storeKey]*opened
	lists  map[string][]Source // complete ones by their references and client; dropped whenever stores changes
	uses   uint64
	// retired says that stores are held only as long as somebody uses them.
	retired bool
}

// storeKey is a canonical reference, and the client where each has its own: what is in a directory may have been replaced
// between two clients, and opening it costs next to nothing.
type storeKey struct {
	ref    string
	client uint64
}

// opened is a store, or why there is none.
type opened struct {
	source Source // nil if it could not be opened
	err    error
	said   []string            // errors that were logged meanwhile, for those who are told of err
	retry  time.Time           // when to try again
	told   map[uint64]struct{} // clients that know; guarded by registry.mu
	used   uint64              // guarded by registry.mu
}

func newRegistry(open func(context.Context, Asker, settings.StoreReference) (Source, error)) *registry {
	return &registry{open: open, stores: make(map[storeKey]*opened), lists: make(map[string][]Source)}
}

// list gives the session's stores in the order in which they are asked (store-registration.cc,
// getDefaultSubstituters). Those that cannot be opened are left out; each client is warned once.
func (r *registry) list(ctx context.Context, sess *session.Session) ([]Source, error) {
	refs := sess.Settings.Substituters
	if len(refs) == 0 {
		return nil, nil
	}
	if sources, ok := r.known(sess); ok {
		return sources, nil
	}
	return r.assemble(ctx, sess)
}

// known is list if nothing has to be opened.
func (r *registry) known(sess *session.Session) ([]Source, bool) {
	if len(sess.Settings.Substituters) == 0 {
		return nil, true
	}
	key := listKey(sess)
	r.mu.Lock()
	sources, ok := r.lists[key]
	r.mu.Unlock()
	return sources, ok && !slices.ContainsFunc(sources, isStale)
}

// isStale tells of a store whether it must be opened anew though it is well.
func isStale(s Source) bool {
	c, ok := s.(interface{ Stale() bool })
	return ok && c.Stale()
}

func listKey(sess *session.Session) string {
	return strings.Join(sess.Settings.Substituters, " ") + " " + string(binaryID(sess.Client))
}

func binaryID(n uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(n >> (8 * i))
	}
	return b
}

// assemble opens what is not open, all at once.
func (r *registry) assemble(ctx context.Context, sess *session.Session) ([]Source, error) {
	refs := uniqueReferences(sess.Settings.Substituters)
	all := make([]*opened, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() { all[i] = r.get(ctx, sess, ref) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var sources []Source
	for _, o := range all {
		if o.source != nil {
			sources = append(sources, o.source)
		} else if r.mustTell(o, sess.Client) {
			for _, text := range o.said {
				sess.Log.Message(activity.Error, text)
			}
			warn(sess.Log, o.err)
		}
	}
	slices.SortStableFunc(sources, func(a, b Source) int { return cmp.Compare(a.Priority(), b.Priority()) })
	if len(sources) == len(refs) {
		r.mu.Lock()
		if len(r.lists) >= 4*maxOwn {
			clear(r.lists)
		}
		r.lists[listKey(sess)] = sources
		r.mu.Unlock()
	}
	return sources, nil
}

// uniqueReferences parses references that were parsed before, and drops duplicates.
func uniqueReferences(words []string) []settings.StoreReference {
	var refs []settings.StoreReference
	seen := make(map[string]struct{}, len(words))
	for _, word := range words {
		ref, err := settings.ParseStoreReference(word)
		if _, again := seen[word]; err == nil && !again {
			seen[word] = struct{}{}
			refs = append(refs, ref)
		}
	}
	return refs
}

func (r *registry) mustTell(o *opened, client uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, told := o.told[client]; told {
		return false
	}
	if o.told == nil {
		o.told = make(map[uint64]struct{})
	}
	o.told[client] = struct{}{}
	return true
}

func keyOf(sess *session.Session, ref settings.StoreReference) storeKey {
	key := storeKey{ref: ref.String()}
	if ref.Scheme == "file" {
		key.client = sess.Client
	}
	return key
}

func (r *registry) get(ctx context.Context, sess *session.Session, ref settings.StoreReference) *opened {
	key := keyOf(sess, ref)
	if o := r.look(key); o != nil {
		return o
	}
	o, err := r.opening.do(ctx, key, sess.Log, func(ctx context.Context, log activity.Sink) (*opened, error) {
		begun := time.Now()
		held := &withheld{Sink: log}
		source, err := r.openResting(ctx, Asker{Settings: sess.Settings, Log: held}, ref)
		o := &opened{source: source, err: err, said: held.said, retry: time.Now().Add(min(time.Since(begun), retryAtMost))}
		if err != nil {
			o.source = nil
		}
		switch {
		case ctx.Err() == nil:
			r.keep(key, o)
		case o.source != nil: // nobody waits for it any more
			o.source, o.err = nil, errors.Join(context.Cause(ctx), o.source.Close())
		}
		return o, nil
	})
	if err != nil {
		return &opened{err: err}
	}
	return o
}

// openResting opens a store that is not held when nobody uses it.
func (r *registry) openResting(ctx context.Context, a Asker, ref settings.StoreReference) (Source, error) {
	source, err := r.open(ctx, a, ref)
	if err != nil {
		return nil, err
	}
	if h, ok := source.(holder); ok && h.Holds() {
		return newResting(h, restAfter, func(ctx context.Context, a Asker) (Source, error) { return r.open(ctx, a, ref) }), nil
	}
	return source, nil
}

// retire gives back what stores hold that nobody uses, now and from now on.
func (r *registry) retire() {
	r.mu.Lock()
	r.retired = true
	var held []*resting
	for _, o := range r.stores {
		if h, ok := o.source.(*resting); ok {
			held = append(held, h)
		}
	}
	r.mu.Unlock()
	var retiring sync.WaitGroup
	for _, h := range held { // side by side: one that is just being opened, or does not end, takes its time
		retiring.Go(h.retire)
	}
	retiring.Wait()
}

// withheld keeps errors back: who is told why a store cannot be opened is told of them, too, and once, however often that
// is tried.
type withheld struct {
	activity.Sink
	mu   sync.Mutex
	said []string
}

// Message keeps an error.
func (w *withheld) Message(level activity.Level, text string) {
	if level != activity.Error {
		w.Sink.Message(level, text)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

// look gives what is known of a store, nil if it is to be opened.
func (r *registry) look(key storeKey) *opened {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.stores[key]
	switch {
	case o == nil:
		return nil
	case o.source == nil && !time.Now().Before(o.retry), o.source != nil && isStale(o.source):
		return nil
	}
	r.uses++
	o.used = r.uses
	return o
}

func (r *registry) keep(key storeKey, o *opened) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.uses++
	o.used = r.uses
	if h, ok := o.source.(*resting); ok && r.retired {
		h.retire() // nobody uses it yet
	}
	if old := r.stores[key]; old != nil && o.source == nil && len(old.told) < maxTold {
		o.told = old.told
	}
	r.stores[key] = o
	clear(r.lists)
	if key.client != 0 {
		r.dropOldestLocked()
	}
}

// dropOldestLocked bounds the stores that belong to single clients. Nothing of them needs to be closed but memory.
func (r *registry) dropOldestLocked() {
	var oldest storeKey
	n := 0
	for key, o := range r.stores {
		if key.client == 0 {
			continue
		}
		n++
		if n == 1 || o.used < r.stores[oldest].used {
			oldest = key
		}
	}
	if n > maxOwn {
		delete(r.stores, oldest)
	}
}

func (r *registry) close() error {
	r.opening.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	var first error
	for _, o := range r.stores {
		if o.source == nil {
			continue
		}
		if err := o.source.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
