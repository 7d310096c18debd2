package restricted_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

func submitting(w *world) { w.build.submits = true }

func (w *world) submit(p storepath.Path, output string) error {
	return w.client.SubmitOutput(w.ctx, protocol.SubmitOutputRequest{Path: &derivation.SingleDerivedPath{Path: p}, Output: output})
}

// TestSubmit adds and submits, as upstream's client does.
func TestSubmit(t *testing.T) {
	w := newWorld(t, submitting)
	if v, err := w.client.Negotiated(w.ctx); err != nil || !slices.Equal(v.Features, protocol.BuilderRPCVersion().Features) {
		t.Fatalf("features are %v, %v", v, err)
	}
	info, err := w.client.AddToStoreScanning(w.ctx, protocol.AddToStoreScanningRequest{Name: "made", MethodAlgo: "text:sha256"}, strings.NewReader("made"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.client.AddTempRoot(w.ctx, info.Path); err != nil {
		t.Error(err)
	}
	if err := w.submit(info.Path, "out"); err != nil {
		t.Fatal(err)
	}
	if want := []string{info.Path.Base() + " out"}; !slices.Equal(w.build.submitted, want) {
		t.Errorf("submitted %q, want %q", w.build.submitted, want)
	}
}

// TestOnlySubmit: who submits outputs may ask for little else; what may be asked is fixed for ever.
func TestOnlySubmit(t *testing.T) {
	w := newWorld(t, submitting)
	allowed := []protocol.Op{1, 7, 11, 39, 44, 1000, 1001}
	for op := range protocol.Op(60) {
		if slices.Contains(allowed, op) {
			continue
		}
		w.refused(w.client.Do(w.ctx, func(conn *client.Conn) error { return conn.Call(op, nil, nil) }),
			fmt.Sprintf("Operation %d not allowed inside derivation", op))
	}
}

// TestNotSubmitting: elsewhere the requests do not exist, and without the feature they are refused.
func TestNotSubmitting(t *testing.T) {
	w := newWorld(t)
	w.refused(w.client.Do(w.ctx, func(conn *client.Conn) error { return conn.Call(protocol.OpSubmitOutput, nil, nil) }), "invalid operation 1000")
	if err := w.submit(w.input.Path, "out"); err != client.ErrNoSubmit {
		t.Errorf("got %v", err)
	}
	old := w.connect(protocol.Version{Number: protocol.Minor(38)})
	scan := func(out *protocol.Writer) {
		out.AddToStoreScanning(protocol.AddToStoreScanningRequest{Name: "x", MethodAlgo: "text:sha256"})
	}
	w.refused(old.Do(w.ctx, func(conn *client.Conn) error { return conn.Call(protocol.OpAddToStoreScanning, scan, nil) }),
		"Adding to store with scanning was requested, but not supported in negotiated protocol")

	w = newWorld(t, submitting)
	w.set.ExperimentalFeatures = settings.Features(settings.CADerivations)
	const disabled = "experimental Nix feature 'dynamic-derivations' is disabled; add '--extra-experimental-features dynamic-derivations' to enable it"
	w.refused(w.submit(w.input.Path, "out"), disabled)
	w.refused(w.client.Do(w.ctx, func(conn *client.Conn) error { return conn.Call(protocol.OpAddToStoreScanning, scan, nil) }), disabled)
}
