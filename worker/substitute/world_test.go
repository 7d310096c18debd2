package substitute

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/localstore/localstoretest"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/compression"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute/narinfocache"
)

// recorder keeps what a session is told.
type recorder struct {
	mu     sync.Mutex
	events []string
	live   map[activity.ID]string
}

func (r *recorder) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *recorder) Message(level activity.Level, text string) {
	r.add("%d: %s", level, plain(text))
}

func (r *recorder) Start(id activity.ID, _ activity.Level, kind activity.Type, text string, _ []activity.Field, parent activity.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil {
		r.live = make(map[activity.ID]string)
	}
	name := fmt.Sprint(uint64(kind))
	if above, ok := r.live[parent]; ok {
		name = above + "/" + name
	}
	r.live[id] = name
	r.events = append(r.events, strings.TrimSpace("start "+name+" "+text))
}

func (r *recorder) Stop(id activity.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, "stop "+r.live[id])
	delete(r.live, id)
}

func (r *recorder) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf("result %s %d %d/%d", r.live[id], kind, fields[0].Number, fields[1].Number))
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.events, "\n")
}

// plain takes the colours out.
func plain(s string) string {
	for _, escape := range []string{magenta, red, normal} {
		s = strings.ReplaceAll(s, escape, "")
	}
	return s
}

// world is a store and a cache to fill it from.
type world struct {
	*testing.T
	ctx   context.Context
	store *localstore.Store
	subst *Substituter
	cache fakeCache
	key   pathinfo.SecretKey
	ids   activity.IDs
	calls callCounter

	decoders compression.Decoders
}

// callCounter counts what is opened.
type callCounter struct {
	mu    sync.Mutex
	names []string
	block chan struct{} // if not nil, archives wait for it

	missing string // what names of objects that are not there begin with, if not ""
}

func secretKey(t testing.TB, name string) pathinfo.SecretKey {
	seed := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(len(name))}, ed25519.SeedSize))
	key, err := pathinfo.ParseSecretKey(name + ":" + base64.StdEncoding.EncodeToString(seed))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, ctx: t.Context(), store: localstoretest.New(t, nil), key: secretKey(t, "cache-1")}
	w.cache = fakeCache{t: t, dir: filepath.Join(t.TempDir(), "cache"), store: w.store.Dir(), key: w.key}
	w.subst = New(Options{
		Store: w.store, IDs: &w.ids, RequireSigs: true, StoreURI: "local",
		Keys: func(s *settings.Settings) pathinfo.Keys {
			keys, err := pathinfo.ParseKeys(s.TrustedPublicKeys)
			if err != nil {
				t.Error(err)
			}
			return keys
		},
		Open: w.open,
	})
	t.Cleanup(func() {
		if err := w.subst.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) open(ctx context.Context, a Asker, ref settings.StoreReference) (Source, error) {
	switch ref.Scheme {
	case "file":
		d, err := OpenDirectory(ref)
		if err != nil {
			return nil, err
		}
		return OpenCache(ctx, a, CacheOptions{Reference: ref, URI: d.URI(), Dir: w.store.Dir(), Objects: counted{d, &w.calls}, IDs: &w.ids, Local: true, Decoders: &w.decoders})
	case "far":
		local := ref
		local.Scheme = "file"
		d, err := OpenDirectory(local)
		if err != nil {
			return nil, err
		}
		return OpenCache(ctx, a, CacheOptions{Reference: ref, URI: "http://far", Dir: w.store.Dir(), Objects: counted{d, &w.calls}, IDs: &w.ids,
			Infos: narinfocache.New(narinfocache.Options{}), Decoders: &w.decoders})
	case "dummy":
		return OpenDummy(a, ref, w.store.Dir())
	}
	return nil, errorf(nil, "don't know how to open Nix store with scheme '%s'", ref.Scheme)
}

// counted notes what is opened of a directory.
type counted struct {
	*Directory
	calls *callCounter
}

func (c counted) Get(ctx context.Context, a Asker, name string) (io.ReadCloser, error) {
	c.calls.mu.Lock()
	c.calls.names = append(c.calls.names, name)
	block := c.calls.block
	c.calls.mu.Unlock()
	if block != nil && strings.HasPrefix(name, "nar/") {
		select {
		case <-block:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if c.calls.missing != "" && strings.HasPrefix(name, c.calls.missing) {
		return nil, errorf(ErrNoObject, "no '%s'", name)
	}
	return c.Directory.Get(ctx, a, name)
}

func (c *callCounter) count(prefix string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, name := range c.names {
		if strings.HasPrefix(name, prefix) {
			n++
		}
	}
	return n
}

// session is a client that trusts the world's key and takes from these stores.
func (w *world) session(client uint64, stores ...string) (*session.Session, *recorder) {
	s := &settings.Settings{Substitute: true, Substituters: stores, TrustedPublicKeys: []string{w.key.Public().String()}}
	log := &recorder{}
	return &session.Session{User: "alice", Client: client, Settings: s, Log: log}, log
}

// take substitutes a path, its references first.
func (w *world) take(sess *session.Session, p storepath.Path) error {
	o, err := w.subst.Find(w.ctx, sess, p, storepath.ContentAddress{}, nil)
	if err != nil {
		return err
	}
	if o == nil {
		return errorf(nil, "nobody has '%s'", p.Base())
	}
	return w.subst.Fetch(w.ctx, sess, o, false)
}

func (w *world) valid(p storepath.Path) bool {
	w.Helper()
	valid, err := w.store.IsValid(w.ctx, p)
	if err != nil {
		w.Fatal(err)
	}
	return valid
}

// leftovers are files in the store directory that belong to no valid path, but for locks: the next one to want the path
// uses those again, as upstream does.
func (w *world) leftovers() []string {
	w.Helper()
	entries, err := os.ReadDir(w.store.RealDir())
	if err != nil {
		w.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		p, err := storepath.ParseBase(e.Name())
		if e.Name() == ".links" || strings.HasSuffix(e.Name(), ".lock") || err == nil && w.valid(p) {
			continue
		}
		left = append(left, e.Name())
	}
	return left
}

// fakeCache writes binary caches, also wrong ones.
type fakeCache struct {
	t     testing.TB
	dir   string
	store storepath.Dir
	key   pathinfo.SecretKey
}

func (c *fakeCache) uri() string { return "file://" + c.dir }

func (c *fakeCache) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// add puts a path with one file into the cache, after change has had its way with the narinfo and the archive, and
// signs it before sign has.
func (c *fakeCache) add(name, contents string, refs []storepath.Path, change func(*narinfo.NarInfo, *[]byte)) storepath.Path {
	c.t.Helper()
	data := nartest.File(contents)
	sum := nixhash.Of(nixhash.SHA256, string(data))
	p, err := c.store.MakePath("output:out", nixhash.Of(nixhash.SHA256, name+contents), name)
	if err != nil {
		c.t.Fatal(err)
	}
	n := &narinfo.NarInfo{
		Info: pathinfo.Info{Path: p, NarHash: sum, NarSize: uint64(len(data)), References: refs},
		URL:  "nar/" + sum.Nix32() + ".nar", Compression: "none", FileHash: sum, FileSize: uint64(len(data)),
	}
	slices.SortFunc(n.References, storepath.Compare)
	if err := n.Sign(c.store, c.key); err != nil {
		c.t.Fatal(err)
	}
	if change != nil {
		change(n, &data)
	}
	c.write(n.URL, string(data))
	c.write(p.HashPart()+".narinfo", n.Format(c.store))
	c.write("nix-cache-info", "StoreDir: "+string(c.store)+"\n")
	return p
}
