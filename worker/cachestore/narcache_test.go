package cachestore

import (
	"os"
	"path/filepath"
	"testing"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// TestNarCache reads a derivation once from the cache, then from this machine, unless what is there was changed.
func TestNarCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nars")
	w := newWorld(t, settings.Param{Name: "local-nar-cache", Value: dir}, settings.Param{Name: "compression", Value: "none"})
	drv := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{
		Name: "x", Platform: "p", Builder: "/b", Env: map[string]string{},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256}},
	}}
	w.store.o.Features = derivation.AllFeatures()
	text, err := drv.Unparse(storepath.DefaultDir, false, nil)
	w.must(err)
	data := nartest.File(text)
	info, err := pathinfo.FromCA(storepath.DefaultDir, "x.drv", storepath.ContentAddress{Method: storepath.MethodText, Hash: nixhash.Of(nixhash.SHA256, text)}, storepath.References{})
	w.must(err)
	info.NarHash, info.NarSize = nixhash.Of(nixhash.SHA256, string(data)), uint64(len(data))
	w.add(info, data)
	read := func() error {
		got, err := w.store.ReadDerivation(w.ctx, info.Path)
		if err == nil && got.Builder != "/b" {
			t.Errorf("got %+v", got)
		}
		return err
	}
	w.must(read())
	file := filepath.Join(dir, info.NarHash.Nix32()+".nar")
	if kept, err := os.ReadFile(file); err != nil || string(kept) != string(data) {
		t.Fatalf("%d bytes are kept, %v", len(kept), err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o644 {
		t.Errorf("kept with mode %v, %v: others may write to it", info.Mode(), err)
	}
	w.must(os.Remove(file))
	w.must(os.Symlink(filepath.Join(dir, "elsewhere"), file))
	w.must(read())
	if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
		t.Errorf("a link was kept: %v, %v", info.Mode(), err)
	}
	w.must(os.WriteFile(file, []byte("something else"), 0o600))
	w.must(read())
	if kept, err := os.ReadFile(file); err != nil || string(kept) != string(data) {
		t.Errorf("%q is kept, %v", kept, err)
	}
	delete(w.files.files, "nar/"+info.NarHash.Nix32()+".nar")
	w.must(read())
	w.must(os.RemoveAll(dir))
	if err := read(); err == nil {
		t.Error("read from nowhere")
	}
	w.must(os.WriteFile(dir, nil, 0o600)) // nothing can be kept
	w.store = w.open(settings.Param{Name: "local-nar-cache", Value: dir}, settings.Param{Name: "compression", Value: "none"})
	w.store.o.Features = derivation.AllFeatures()
	w.files.files["nar/"+info.NarHash.Nix32()+".nar"] = data
	w.must(read())
}
