package worker

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// TestRefuse greets with each kind of client and has it find the reason where it looks for errors.
func TestRefuse(t *testing.T) {
	for _, minor := range []uint8{21, 25, 32, 37, 38} {
		var in, out bytes.Buffer
		w := wire.NewWriter(&in)
		w.Uint64(0x6e697863)
		w.Uint64(1<<8 | uint64(minor))
		if minor >= 38 {
			w.Uint64(0) // features
		}
		w.Uint64(0)
		w.Uint64(0)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		stream := struct {
			io.Reader
			io.Writer
		}{&in, &out}
		err := Refuse(stream, storepath.DefaultDir, protocol.ServerInfo{NixVersion: "2.34.8"}, errors.New("it is damaged"))
		if err != nil {
			t.Fatalf("1.%d: %v", minor, err)
		}
		var want bytes.Buffer
		body := protocol.NewWriter(wire.NewWriter(&want), storepath.DefaultDir, protocol.Version{Number: protocol.Minor(minor)})
		(&conn{out: body}).sendError(errors.New("it is damaged"))
		if err := body.Flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(out.Bytes(), want.Bytes()) || !bytes.Contains(want.Bytes(), []byte("it is damaged")) {
			t.Errorf("1.%d: got %q, want %q at the end", minor, out.Bytes(), want.Bytes())
		}
	}
	if err := Refuse(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader([]byte("GET / HTTP")), io.Discard}, storepath.DefaultDir, protocol.ServerInfo{}, errors.New("no")); err == nil {
		t.Error("a client that is none was answered")
	}
}
