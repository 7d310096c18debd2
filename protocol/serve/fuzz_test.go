package serve

import (
	"bytes"
	"context"
	"io"
	"testing"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// request gives the bytes that a client sends for a request, after its login.
func request(minor uint8, write func(*Writer)) []byte {
	var b bytes.Buffer
	w := NewWriter(wire.NewWriter(&b), storepath.DefaultDir, at(minor))
	w.Uint64(clientMagic)
	w.Uint64(uint64(at(minor)))
	write(w)
	w.Flush()
	return b.Bytes()
}

// FuzzServe feeds a server.
func FuzzServe(f *testing.F) {
	a := testPath(f, "a")
	basic := &derivation.BasicDerivation{Name: "x", Builder: "/bin/sh", Outputs: map[string]derivation.Output{"out": {Kind: derivation.InputAddressed, Path: a}}}
	for _, minor := range []uint8{1, 5, 8} {
		f.Add(request(minor, func(w *Writer) {
			w.Command(QueryValidPaths)
			w.ValidPaths(ValidPathsRequest{Paths: []storepath.Path{a}})
			w.Command(QueryPathInfos)
			w.StorePaths([]storepath.Path{a})
			w.Command(QueryClosure)
			w.Bool(true)
			w.StorePaths([]storepath.Path{a})
		}))
		f.Add(request(minor, func(w *Writer) {
			w.BuildDerivation(BuildDerivationRequest{DrvPath: testPath(f, "x.drv"), Derivation: basic})
			w.Command(BuildPaths)
			w.Strings([]string{"/nix/store/" + a.Base()})
			w.BuildOptions(BuildOptions{})
		}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &memory{lazy: true}
		Serve(context.Background(), script{bytes.NewReader(data), io.Discard}, m, Options{Dir: storepath.DefaultDir, Write: true, Features: derivation.AllFeatures()})
	})
}

// FuzzReplies feeds a client, and demands that what it accepts of values is
// written as it was.
func FuzzReplies(f *testing.F) {
	for _, minor := range []uint8{2, 3, 6, 8} {
		var b bytes.Buffer
		w := NewWriter(wire.NewWriter(&b), storepath.DefaultDir, at(minor))
		w.BuildResult(derivation.BuildResult{Status: derivation.StatusMiscFailure, ErrorMsg: "no"})
		w.Flush()
		f.Add(minor, b.Bytes())
	}
	f.Fuzz(func(t *testing.T, minor uint8, data []byte) {
		v := at(minor % 9)
		r := NewReader(wire.NewReader(bytes.NewReader(data)), storepath.DefaultDir, v)
		r.StartRequest()
		if res, err := r.BuildResult(); err == nil {
			again(t, v, func(w *Writer) { w.BuildResult(res) }, func(r *Reader) error { _, err := r.BuildResult(); return err })
		}
		r = NewReader(wire.NewReader(bytes.NewReader(data)), storepath.DefaultDir, v)
		r.StartRequest()
		if info, err := r.Info(storepath.Path{}); err == nil {
			again(t, v, func(w *Writer) { w.Info(info) }, func(r *Reader) error { _, err := r.Info(storepath.Path{}); return err })
		}
	})
}

// again reads what is written.
func again(t *testing.T, v Version, write func(*Writer), read func(*Reader) error) {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(wire.NewWriter(&b), storepath.DefaultDir, v)
	write(w)
	w.Flush()
	if err := read(NewReader(wire.NewReader(&b), storepath.DefaultDir, v)); err != nil {
		t.Errorf("what was accepted is refused: %v", err)
	}
}
