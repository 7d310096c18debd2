package restricted_test

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

func TestAdd(t *testing.T) {
	w := newWorld(t)
	info, err := w.client.AddToStore(w.ctx, protocol.AddToStoreRequest{Name: "a", MethodAlgo: "text:sha256", References: []storepath.Path{w.input.Path}, Repair: true},
		strings.NewReader("refers to an input"))
	if err != nil {
		t.Fatal(err)
	}
	nar1, data1 := w.archive("b", "refers to what was added", info.Path)
	if err := w.client.AddNAR(w.ctx, protocol.AddToStoreNarRequest{Info: nar1}, strings.NewReader(data1)); err != nil {
		t.Fatal(err)
	}
	nar2, data2 := w.archive("c", "one")
	nar3, data3 := w.archive("d", "two, which refers to one", nar2.Path)
	if err := w.client.AddMultiple(w.ctx, true, true, []client.Addition{{Info: nar2, NAR: strings.NewReader(data2)}, {Info: nar3, NAR: strings.NewReader(data3)}}); err != nil {
		t.Fatal(err)
	}
	want := storepath.SortUnique([]storepath.Path{info.Path, nar1.Path, nar2.Path, nar3.Path})
	if got := storepath.SortUnique(slices.Clone(w.build.added)); !slices.Equal(got, want) {
		t.Errorf("build sees %v, want %v", got, want)
	}
	for _, p := range want {
		if valid, err := w.client.IsValid(w.ctx, p); err != nil || !valid {
			t.Errorf("%s: %v, %v", p, valid, err)
		}
	}
}

// TestAddScanning finds references to what the builder sees, and to nothing else that is mentioned.
func TestAddScanning(t *testing.T) {
	w := newWorld(t)
	text := w.print(w.input.Path) + " and " + w.print(w.secret.Path)
	info, err := w.client.AddToStoreScanning(w.ctx, protocol.AddToStoreScanningRequest{Name: "scanned", MethodAlgo: "text:sha256"}, strings.NewReader(text))
	if err != nil || !slices.Equal(info.References, []storepath.Path{w.input.Path}) {
		t.Fatalf("got %+v, %v", info, err)
	}
	if want := w.text("scanned", text, w.input.Path); info.Path != want.Path {
		t.Errorf("path is %s, want %s", info.Path, want.Path)
	}
	_, err = w.client.AddToStoreScanning(w.ctx, protocol.AddToStoreScanningRequest{Name: "x", MethodAlgo: "nonsense"}, strings.NewReader(text))
	if err == nil {
		t.Error("a nonsensical method was accepted")
	}
	if valid, err := w.client.IsValid(w.ctx, info.Path); err != nil || !valid {
		t.Errorf("out of step: %v, %v", valid, err)
	}
}

// TestAddIsNoWayToSee has a builder claim to add what it knows only by name.
func TestAddIsNoWayToSee(t *testing.T) {
	w := newWorld(t)
	secret, contents := w.archive("hidden", "contents that the builder does not know")
	if err := w.store.AddNAR(w.ctx, secret, strings.NewReader(contents), addOptions); err != nil {
		t.Fatal(err)
	}
	_, lie := w.archive("hidden", "contents that the builder makes up")
	// All that can be known of it but its contents is right.
	err := w.client.AddNAR(w.ctx, protocol.AddToStoreNarRequest{Info: secret}, strings.NewReader(lie))
	if err == nil || !strings.Contains(err.Error(), "hash mismatch importing path") || strings.Contains(err.Error(), secret.NarHash.String()) {
		t.Errorf("got %v", err)
	}
	if err := w.client.AddMultiple(w.ctx, false, false, []client.Addition{{Info: secret, NAR: strings.NewReader(lie)}}); err == nil {
		t.Error("was let in by a batch")
	}
	// References.
	naming, data := w.archive("naming", "refers to what is hidden", secret.Path)
	w.refused(w.client.AddNAR(w.ctx, protocol.AddToStoreNarRequest{Info: naming}, strings.NewReader(data)),
		"cannot add '"+w.print(naming.Path)+"' in recursive Nix because it refers to '"+w.print(secret.Path)+"', which is unknown")
	_, err = w.client.AddToStore(w.ctx, protocol.AddToStoreRequest{Name: "naming", MethodAlgo: "text:sha256", References: []storepath.Path{secret.Path}}, strings.NewReader("x"))
	w.refused(err, "cannot add 'naming' in recursive Nix because it refers to '"+w.print(secret.Path)+"', which is unknown")
	// A derivation that has it as an input, without saying so.
	drv, err := w.client.AddText(w.ctx, protocol.AddTextRequest{Name: "thief.drv", Text: w.derivation("thief", secret.Path)})
	if err != nil {
		t.Fatal(err)
	}
	w.refused(w.client.BuildPaths(w.ctx, outputsOf(drv), derivation.BuildNormal), "cannot build '"+w.print(secret.Path)+"' in recursive Nix because path is unknown")
	// The same by way of a derivation that looks harmless.
	outer := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{Name: "harmless", Platform: "x", Builder: "/bin/sh", Env: map[string]string{"out": ""},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256}}},
		InputDrvs: map[storepath.Path]*derivation.InputOutputs{drv: {Outputs: []string{"out"}}}}
	text, err := outer.ATerm(w.store.Dir())
	if err != nil {
		t.Fatal(err)
	}
	harmless, err := w.client.AddText(w.ctx, protocol.AddTextRequest{Name: "harmless.drv", Text: text, References: []storepath.Path{drv}})
	if err != nil {
		t.Fatal(err)
	}
	w.refused(w.client.BuildPaths(w.ctx, outputsOf(harmless), derivation.BuildNormal), "cannot build '"+w.print(secret.Path)+"' in recursive Nix because path is unknown")
	if len(w.build.built) != 0 || w.build.MayUse(secret.Path) {
		t.Errorf("built %v; sees it: %v", w.build.built, w.build.MayUse(secret.Path))
	}
	// Who brings the contents may see them.
	if err := w.client.AddNAR(w.ctx, protocol.AddToStoreNarRequest{Info: secret}, strings.NewReader(contents)); err != nil || !w.build.MayUse(secret.Path) {
		t.Errorf("with its contents: %v", err)
	}
}

// TestUnsigned: a builder is not trusted, whoever asked for the build.
func TestUnsigned(t *testing.T) {
	w := newWorld(t)
	info, data := w.archive("x", "not content-addressed")
	plain := &pathinfo.Info{Path: info.Path, NarHash: info.NarHash, NarSize: info.NarSize}
	w.refused(w.client.AddNAR(w.ctx, protocol.AddToStoreNarRequest{Info: plain, DontCheckSigs: true}, strings.NewReader(data)),
		"cannot add path '"+w.print(info.Path)+"' because it lacks a signature by a trusted key")
}

// TestNoRepair: asked to repair, the store would write anew what is in use elsewhere.
func TestNoRepair(t *testing.T) {
	w := newWorld(t)
	before := w.inode(w.input.Path)
	info, err := w.client.AddToStore(w.ctx, protocol.AddToStoreRequest{Name: "input", MethodAlgo: "text:sha256", References: []storepath.Path{w.dep.Path}, Repair: true},
		strings.NewReader("an input"))
	if err != nil || info.Path != w.input.Path {
		t.Fatalf("%+v, %v", info, err)
	}
	if w.inode(w.input.Path) != before {
		t.Error("the builder has replaced an input")
	}
}

// TestOptionsAreIgnored: what a builder wants is read, as older clients send it, and not even worth a warning.
func TestOptionsAreIgnored(t *testing.T) {
	w := newWorld(t)
	var told sink
	c := client.New(client.Options{Dial: w.dial, Dir: w.store.Dir(), Version: protocol.Version{Number: protocol.Minor(38)}, Log: &told,
		Settings: &protocol.ClientOptions{Verbosity: 7, Overrides: []protocol.Override{{Name: "substituters", Value: "file:///evil"}}}})
	defer c.Close()
	if valid, err := c.IsValid(w.ctx, w.input.Path); err != nil || !valid {
		t.Errorf("%v, %v", valid, err)
	}
	if told.n != 0 {
		t.Errorf("client was told %d messages", told.n)
	}
}

// TestHuge sends requests that claim to be larger than anything; each ends its connection and costs nothing.
func TestHuge(t *testing.T) {
	w := newWorld(t)
	for name, request := range map[string][]uint64{
		"paths":      {uint64(protocol.OpQueryValidPaths), 1 << 62},
		"text":       {uint64(protocol.OpAddTextToStore), 1 << 62},
		"builds":     {uint64(protocol.OpBuildPathsWithResults), 1 << 40},
		"scan name":  {uint64(protocol.OpAddToStoreScanning), 1 << 50},
		"overrides":  {uint64(protocol.OpSetOptions), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 << 40},
		"signatures": {uint64(protocol.OpAddSignatures), 1 << 50},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := w.client.Do(w.ctx, func(conn *client.Conn) error {
			return conn.Call(protocol.Op(request[0]), func(out *protocol.Writer) {
				for _, n := range request[1:] {
					out.Uint64(n)
				}
			}, nil)
		})
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: was answered", name)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("%s: took %d bytes", name, used)
		}
	}
}
