package protocol

import (
	"slices"
	"testing"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/protocoltest"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

func TestNestedRoundTrip(t *testing.T) {
	roundTrip(t, "AddToStoreScanning", same(AddToStoreScanningRequest{"a", "fixed:r:sha256"}),
		(*Writer).AddToStoreScanning, (*Reader).AddToStoreScanning)
	roundTrip(t, "SubmitOutput", same(SubmitOutputRequest{&derivation.SingleDerivedPath{Path: pathA}, "out"}),
		(*Writer).SubmitOutput, (*Reader).SubmitOutput)
	built := &derivation.SingleDerivedPath{Drv: &derivation.SingleDerivedPath{Path: drvA}, Output: "inner"}
	roundTrip(t, "built path", same(&derivation.SingleDerivedPath{Drv: built, Output: "outer"}),
		(*Writer).SingleDerivedPath, (*Reader).SingleDerivedPath)
}

func TestSingleDerivedPathRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		write func(*Writer)
		want  string
	}{
		"tag":       {func(w *Writer) { w.Uint64(2) }, "Invalid tag 2 for single derived path"},
		"too large": {func(w *Writer) { w.Uint64(256) }, "serialised integer 256 is too large for type 'h'"},
		"deep": {func(w *Writer) {
			for range maxSingleDepth + 1 {
				w.Uint64(tagBuilt)
			}
		}, "single derived path goes through more than 1000 outputs"},
		"no path": {func(w *Writer) { w.Uint64(tagOpaque); w.String("/etc/passwd") }, `path "/etc/passwd" is not in the Nix store`},
	} {
		w, reader := ends(BuilderRPCVersion())
		tt.write(w)
		if _, err := reader().SingleDerivedPath(); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}

func TestScanningMethod(t *testing.T) {
	req := AddToStoreScanningRequest{Name: "a", MethodAlgo: "fixed:git:sha1"}
	if _, _, err := req.Method(derivation.Features{}); err == nil {
		t.Error("git hashing was allowed without its feature")
	}
	if method, _, err := req.Method(derivation.AllFeatures()); err != nil || method != storepath.MethodGit {
		t.Errorf("got method %v, %v", method, err)
	}
}

// TestNestedFeatures has clients of three generations greet the daemon of a
// build: what builders see of builder-rpc-v0 is fixed for ever.
func TestNestedFeatures(t *testing.T) {
	frozen := []Feature{"add-to-store-scanning", "disable-set-options", "realisation-with-path-not-hash", "submit-output"}
	for _, tt := range []struct {
		name          string
		daemon, offer Version
		want          []Feature
	}{
		{"2.36, builder-rpc-v0", BuilderRPCVersion(), ClientVersion(), frozen},
		{"2.36, recursive-nix", NestedVersion(), ClientVersion(),
			[]Feature{"add-to-store-scanning", "delete-dead-specific-referrers", "disable-set-options", "realisation-with-path-not-hash"}},
		{"2.34, recursive-nix", NestedVersion(), Version{Number: Minor(38)}, nil},
		{"2.3, recursive-nix", NestedVersion(), Version{Number: Minor(21)}, nil},
	} {
		client, server := protocoltest.Pipe(t)
		got := make(chan Version, 1)
		go func() {
			r, w, err := ServerHandshake(wire.NewReader(server), wire.NewWriter(server), storepath.DefaultDir,
				tt.daemon, ServerInfo{"2.34.8", NotTrusted})
			if err == nil {
				err = w.Flush()
			}
			if err != nil {
				t.Error(err)
				server.Close()
				close(got)
				return
			}
			got <- r.Version
		}()
		r, _, _, err := ClientHandshake(wire.NewReader(client), wire.NewWriter(client), storepath.DefaultDir, tt.offer)
		if err != nil {
			t.Fatal(err)
		}
		if v := <-got; !slices.Equal(v.Features, tt.want) || !slices.Equal(r.Version.Features, tt.want) {
			t.Errorf("%s: features %v and %v, want %v", tt.name, v.Features, r.Version.Features, tt.want)
		}
	}
}
