package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// cachingClient is a client of a daemon that serves the cache at a URI.
func cachingClient(t *testing.T, uri string) *client.Client {
	t.Helper()
	b, err := assemble(t.Context(), remoteConfig(t, uri, ""), 0, zerolog.Nop(), new(observers), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	trusted := true
	socket, _ := start(t, &Server{Policy: everybody, Trust: &trusted, Serve: func(ctx context.Context, s io.ReadWriter, p Peer) error {
		return b.serve(ctx, s, p)
	}})
	c := client.New(client.Options{Dial: client.Unix(socket)})
	t.Cleanup(func() { c.Close() })
	return c
}

func TestServesCache(t *testing.T) {
	t.Setenv("NIX_CACHE_HOME", t.TempDir())
	dir := filepath.Join(t.TempDir(), "cache")
	c := cachingClient(t, "file://"+dir+"?compression=none")
	if info, err := c.Server(t.Context()); err != nil || info.Trust != protocol.Trusted {
		t.Fatalf("trust %v, %v", info.Trust, err)
	}
	info, err := c.AddToStore(t.Context(), protocol.AddToStoreRequest{
		Name: "hello", MethodAlgo: storepath.PrintCAMethod(storepath.MethodFlat, nixhash.SHA256),
	}, strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, info.Path.HashPart()+".narinfo"))
	if err != nil || !strings.Contains(string(text), "StorePath: /nix/store/"+info.Path.Base()) {
		t.Errorf("%q, %v", text, err)
	}
	var archive bytes.Buffer
	if err := c.Dump(t.Context(), info.Path, &archive); err != nil || uint64(archive.Len()) != info.NarSize {
		t.Errorf("%d bytes, %v", archive.Len(), err)
	}
	missing, err := storepath.ParseBase(strings.Repeat("0", 32) + "-gone")
	if err != nil {
		t.Fatal(err)
	}
	err = c.BuildPaths(t.Context(), []derivation.DerivedPath{{Path: missing}}, derivation.BuildNormal)
	if err == nil || !strings.Contains(err.Error(), "no substituter that can build it") {
		t.Errorf("a path that nobody has: %v", err)
	}
}

// TestServesMemory: what a connection adds it can read, and nobody else.
func TestServesMemory(t *testing.T) {
	t.Setenv("NIX_CACHE_HOME", t.TempDir())
	c := cachingClient(t, "dummy://?read-only=false")
	var paths []storepath.Path
	for range 2 {
		info, err := c.AddToStore(t.Context(), protocol.AddToStoreRequest{
			Name: "hello", MethodAlgo: storepath.PrintCAMethod(storepath.MethodText, nixhash.SHA256),
		}, strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, info.Path)
	}
	var archive bytes.Buffer
	if err := c.Dump(t.Context(), paths[0], &archive); err != nil || archive.Len() != 120 {
		t.Errorf("%d bytes, %v", archive.Len(), err)
	}
	if err := c.BuildPaths(t.Context(), []derivation.DerivedPath{{Path: paths[0]}}, derivation.BuildNormal); err != nil {
		t.Errorf("what is there: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if valid, err := cachingClient(t, "dummy://?read-only=false").IsValid(t.Context(), paths[0]); valid || err != nil {
		t.Errorf("in another connection: %v, %v", valid, err)
	}
}

// TestCacheGone: a cache that cannot be opened ends the connection, as upstream's worker ends, and may be there for the
// next one.
func TestCacheGone(t *testing.T) {
	t.Setenv("NIX_CACHE_HOME", t.TempDir())
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := cachingClient(t, "file://"+dir)
	if _, err := c.Server(t.Context()); err == nil {
		t.Error("a file is no cache")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AllValidPaths(t.Context()); err != nil {
		t.Errorf("when it is there: %v", err)
	}
}

func TestCacheIsRefused(t *testing.T) {
	t.Setenv("NIX_CACHE_HOME", t.TempDir())
	b, err := assemble(t.Context(), remoteConfig(t, "file://"+t.TempDir()+"?secret-key=/nowhere/key", ""), 0, zerolog.Nop(), new(observers), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.serve(t.Context(), nil, Peer{})
	if err = errors.Join(err, b.close()); err == nil || err.Error() != `opening file "/nowhere/key": No such file or directory` {
		t.Errorf("got %v", err)
	}
}

// TestAwayMistakes ends the daemon at its start, as upstream's.
// Who waits for the first connection to open the store, which may hang, can be given up.
func TestCacheIsOpeningForAnother(t *testing.T) {
	b, err := newAway(remoteConfig(t, "file://"+t.TempDir(), ""), zerolog.Nop(), new(observers))
	if err != nil {
		t.Fatal(err)
	}
	b.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.builder(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-b.turn
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

func TestAwayMistakes(t *testing.T) {
	for uri, want := range map[string]string{
		"file:///cache?compression=odd":      "option 'compression' has invalid value 'odd'",
		"dummy://x":                          "`dummy` store URIs must not contain an authority part x",
		"http:///x":                          "`http` Store requires a non-empty authority in Store URL",
		"ssh://host?compress=maybe":          "Boolean setting 'compress' has invalid value 'maybe'",
		"s3://bucket?compression-level=high": "setting 'compression-level' has invalid value 'high'",
	} {
		_, err := assemble(t.Context(), remoteConfig(t, uri, ""), 0, zerolog.Nop(), new(observers), nil)
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", uri, err, want)
		}
	}
}
