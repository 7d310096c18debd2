package cachestore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/compression"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute"
	"nixdaemon/worker/substitute/narinfocache"
)

// memory are a cache's files in memory. It keeps the order in which they were put.
type memory struct {
	mu        sync.Mutex
	files     map[string][]byte
	encodings map[string]string
	order     []string
	// before is asked before each Put; its error is that of Put.
	before func(name string) error
}

var _ substitute.Objects = (*memory)(nil)

func (m *memory) Get(_ context.Context, _ substitute.Asker, name string) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[name]
	if !ok {
		return nil, substitute.ErrNoObject
	}
	// As a client of HTTP gets it: without what its content encoding adds.
	if encoding := m.encodings[name]; encoding != "" {
		return new(compression.Decoders).Encoding(encoding, bytes.NewReader(data))
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m *memory) Exists(_ context.Context, _ substitute.Asker, name string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.files[name]
	return ok, nil
}

func (m *memory) Put(_ context.Context, _ substitute.Asker, name string, o substitute.Object) error {
	if m.before != nil {
		if err := m.before(name); err != nil {
			return err
		}
	}
	r, size, err := o.Open()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if int64(len(data)) != size {
		return fmt.Errorf("%s has %d bytes, not %d", name, len(data), size)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[name], m.encodings[name] = data, o.Encoding
	m.order = append(m.order, name)
	return r.Close()
}

func (m *memory) text(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.files[name])
}

// names are those of the objects in the order in which they were put, without what is before the last slash of archives.
func (m *memory) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string{}, m.order...)
}

// world is a cache that is served.
type world struct {
	testing.TB
	ctx   context.Context
	files *memory
	store *Store
	key   pathinfo.SecretKey
	set   *settings.Settings
}

func newWorld(t testing.TB, params ...settings.Param) *world {
	t.Helper()
	w := &world{TB: t, ctx: t.Context(), files: &memory{files: map[string][]byte{}, encodings: map[string]string{}}, set: &settings.Settings{}}
	w.key = w.secretKey("cache-1")
	w.store = w.open(params...)
	return w
}

func (w *world) open(params ...settings.Param) *Store {
	w.Helper()
	ref := settings.StoreReference{Kind: settings.ReferenceURL, Scheme: "http", Authority: "cache", Params: params}
	infos := narinfocache.New(narinfocache.Options{})
	cache, err := substitute.OpenCache(w.ctx, substitute.Asker{Settings: w.set, Log: activity.Discard{}}, substitute.CacheOptions{
		Reference: ref, URI: "http://cache", Dir: storepath.DefaultDir, Objects: w.files, Infos: infos,
		Decoders: new(compression.Decoders), IDs: new(activity.IDs),
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := errors.Join(cache.Close(), infos.Close()); err != nil {
			w.Error(err)
		}
	})
	s, err := New(Options{Cache: cache, Reference: ref, Settings: w.set, Encoded: true, RequireSigs: true, Keys: w.keys})
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func (w *world) secretKey(name string) pathinfo.SecretKey {
	w.Helper()
	seed := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(len(name))}, ed25519.SeedSize))
	key, err := pathinfo.ParseSecretKey(name + ":" + base64.StdEncoding.EncodeToString(seed))
	if err != nil {
		w.Fatal(err)
	}
	return key
}

// keyFile is a file with a secret key.
func (w *world) keyFile(name string) string {
	w.Helper()
	seed := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(len(name))}, ed25519.SeedSize))
	file := filepath.Join(w.TempDir(), name)
	if err := os.WriteFile(file, []byte(name+":"+base64.StdEncoding.EncodeToString(seed)+"\n"), 0o600); err != nil {
		w.Fatal(err)
	}
	return file
}

// follow makes the store that of a client.
func (w *world) follow(trusted bool) localstore.AddOptions {
	w.store.Follow(&session.Session{Trusted: trusted, Settings: w.set, Log: activity.Discard{}})
	return localstore.AddOptions{RequireSigs: true, TrustedKeys: w.keys(nil)}
}

// keys are what is trusted.
func (w *world) keys(*settings.Settings) pathinfo.Keys {
	keys := make(pathinfo.Keys)
	keys.Add(w.key.Public())
	return keys
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// path makes an input-addressed path whose contents are a text.
func (w *world) path(name, text string, refs ...storepath.Path) (*pathinfo.Info, []byte) {
	w.Helper()
	data := nartest.File(text)
	p, err := storepath.ParseBase(nixhash.EncodeNix32(nixhash.Of(nixhash.SHA256, name).Compress(20)) + "-" + name)
	w.must(err)
	return &pathinfo.Info{Path: p, NarHash: nixhash.Of(nixhash.SHA256, string(data)), NarSize: uint64(len(data)),
		References: storepath.SortUnique(refs)}, data
}

func (w *world) add(info *pathinfo.Info, data []byte) {
	w.Helper()
	w.must(w.store.AddNAR(w.ctx, info, bytes.NewReader(data), localstore.AddOptions{}))
}

func (w *world) dump(p storepath.Path) []byte {
	w.Helper()
	var b bytes.Buffer
	w.must(w.store.Dump(w.ctx, p, &b))
	return b.Bytes()
}
