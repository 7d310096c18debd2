package daemon

import (
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/localstore"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// overlayConfig is a store above another, in a directory that is no overlay.
func overlayConfig(t *testing.T, lower string, checkMount bool) *config.Config {
	t.Helper()
	top := t.TempDir()
	s := settings.Defaults(settings.Environment{System: "x86_64-linux", CPUs: 1})
	s.BuildUsersGroup = ""
	s.ExperimentalFeatures = settings.Features(settings.CADerivations)
	return &config.Config{Settings: s, Store: config.StoreConfig{
		StoreDir: "/nix/store", RealDir: top + "/store", StateDir: top + "/var", LogDir: top + "/log",
		Overlay: &config.OverlayConfig{LowerStore: lower, UpperLayer: top + "/upper", CheckMount: checkMount},
	}}
}

func openConfigured(t *testing.T, cfg *config.Config, own ...string) (*localstore.Store, error) {
	t.Helper()
	store, err := openStore(t.Context(), cfg, storeOptions(cfg, zerolog.Nop()), own)
	if err == nil {
		t.Cleanup(func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return store, err
}

// addToRoot adds a text to the store beneath a root directory, and says what became of an output.
func addToRoot(t *testing.T, root string) (p storepath.Path, id pathinfo.DrvOutput) {
	t.Helper()
	cfg := overlayConfig(t, "", false)
	cfg.Store.Overlay = nil
	cfg.Store.RealDir, cfg.Store.StateDir, cfg.Store.LogDir = root+"/nix/store", root+"/nix/var/nix", root+"/nix/var/log/nix"
	store, err := openConfigured(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	spec := localstore.DumpSpec{Name: "below", Method: storepath.MethodText, Algo: nixhash.SHA256}
	info, err := store.AddDump(t.Context(), spec, strings.NewReader("below"), localstore.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	id = pathinfo.DrvOutput{DrvHash: nixhash.Of(nixhash.SHA256, "drv"), DrvPath: info.Path, Output: "out"}
	if err := store.RegisterRealisation(t.Context(), &pathinfo.Realisation{ID: id, OutPath: info.Path}); err != nil {
		t.Fatal(err)
	}
	return info.Path, id
}

// checkAbove asks a store for what another one beneath has.
func checkAbove(t *testing.T, store *localstore.Store, p storepath.Path, id pathinfo.DrvOutput) {
	t.Helper()
	if info, err := store.PathInfo(t.Context(), p); err != nil || info.NarSize == 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if got, err := store.PathFromHashPart(t.Context(), p.HashPart()); err != nil || got != p {
		t.Error(got, err)
	}
	byHash, byPath := id, id
	byHash.DrvPath, byPath.DrvHash = storepath.Path{}, nixhash.Hash{}
	for _, id := range []pathinfo.DrvOutput{id, byHash, byPath} {
		if got, err := store.QueryRealisation(t.Context(), id); err != nil || got == nil || got.OutPath != p {
			t.Errorf("realisation %+v: %+v, %v", id, got, err)
		}
	}
	if err := store.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
	if _, ok := collected(store).(gc.Overlay); !ok {
		t.Error("its collector would delete what is below")
	}
}

func TestStoreAboveAnother(t *testing.T) {
	root := t.TempDir()
	p, id := addToRoot(t, root)
	store, err := openConfigured(t, overlayConfig(t, "local?root="+url.QueryEscape(root), false))
	if err != nil {
		t.Fatal(err)
	}
	checkAbove(t, store, p, id)
	if valid, err := store.IsValid(t.Context(), p); !valid || err != nil {
		t.Error(valid, err)
	}
}

func TestStoreAboveDaemon(t *testing.T) {
	root := t.TempDir()
	p, id := addToRoot(t, root)
	cfg := overlayConfig(t, "", false)
	cfg.Store.Overlay = nil
	cfg.Store.RealDir, cfg.Store.StateDir, cfg.Store.LogDir = root+"/nix/store", root+"/nix/var/nix", root+"/nix/var/log/nix"
	b, err := newLocal(t.Context(), cfg, 0, zerolog.Nop(), new(observers), nil)
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
	store, err := openConfigured(t, overlayConfig(t, "unix://"+socket, false))
	if err != nil {
		t.Fatal(err)
	}
	checkAbove(t, store, p, id)

	itself, err := openConfigured(t, overlayConfig(t, "unix://"+socket, false), socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := itself.IsValid(t.Context(), p); !errors.Is(err, errOurselves) {
		t.Error("a store above itself:", err)
	}
}

func TestLowerStoreErrors(t *testing.T) {
	root := t.TempDir()
	for lower, want := range map[string]string{
		"file://" + root:             "null pointer cast to ref",
		"dummy://":                   "null pointer cast to ref",
		"ssh-ng://h":                 "null pointer cast to ref",
		"foo://x":                    "don't know how to open Nix store with scheme 'foo'",
		root:                         "mounted incorrectly",
		"unix://" + root + "/socket": "mounted incorrectly",
		"mounted-ssh-ng://localhost": "mounted incorrectly",
	} {
		cfg := overlayConfig(t, lower, true)
		if _, err := openConfigured(t, cfg); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v", lower, err)
		}
		if _, err := os.Lstat(cfg.Store.RealDir); err == nil {
			t.Errorf("%s: something was made where the overlay should be", lower)
		}
	}
}

func TestRealDirOf(t *testing.T) {
	for uri, want := range map[string]string{
		"unix:///s?real=/r/":      "/r",
		"unix:///s?root=/r":       "/r/nix/store",
		"unix:///s?root=/r&real=": "/r/nix/store",
		"unix:///s":               "/nix/store",
		"mounted-ssh-ng://h":      "/nix/store",
	} {
		if got := realDirOf(remoteConfig(t, uri, "").Store); got != want {
			t.Errorf("%s: %s", uri, got)
		}
	}
	if got := realDirOf(config.StoreConfig{RealDir: "/x"}); got != "/x" {
		t.Error(got)
	}
	if got := storeURI(remoteConfig(t, "local-overlay://?root=/r", "").Store.Reference); got != "local-overlay://" {
		t.Error(got)
	}
}
