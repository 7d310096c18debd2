package protocol

import (
	"errors"
	"io"
	"slices"
	"testing"

	"nixdaemon/protocol/protocoltest"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// TestHandshake logs our client in to our server for every pair of versions.
func TestHandshake(t *testing.T) {
	for _, offered := range versions() {
		client, server := protocoltest.Pipe(t)
		type end struct {
			version Version
			err     error
		}
		done := make(chan end, 1)
		go func() {
			r, _, err := serve(server)
			if err != nil {
				done <- end{err: err}
				return
			}
			done <- end{version: r.Version}
		}()
		r, w, info, err := ClientHandshake(wire.NewReader(client), wire.NewWriter(client), storepath.DefaultDir, offered)
		if err != nil {
			t.Fatalf("%v: %v", offered, err)
		}
		got := <-done
		if got.err != nil {
			t.Fatalf("%v: server: %v", offered, got.err)
		}
		if r.Version.Number != offered.Number || got.version.Number != offered.Number || w.Version.Number != offered.Number {
			t.Errorf("%v: client has %v, server %v", offered, r.Version, got.version)
		}
		if !slices.Equal(r.Version.Features, offered.Features) || !slices.Equal(got.version.Features, offered.Features) {
			t.Errorf("%v: features %v and %v", offered, r.Version.Features, got.version.Features)
		}
		want := ServerInfo{}
		if offered.AtLeast(33) {
			want.NixVersion = "2.34.8"
		}
		if offered.AtLeast(35) {
			want.Trust = Trusted
		}
		if info != want {
			t.Errorf("%v: got %+v, want %+v", offered, info, want)
		}
	}
}

func serve(stream io.ReadWriter) (*Reader, *Writer, error) {
	r, w, err := ServerHandshake(wire.NewReader(stream), wire.NewWriter(stream), storepath.DefaultDir,
		DaemonVersion(), ServerInfo{"2.34.8", Trusted})
	if err == nil {
		err = w.Flush()
	}
	return r, w, err
}

func TestBadGreetings(t *testing.T) {
	tests := []struct {
		name  string
		words []uint64
		want  error
	}{
		{"wrong magic", []uint64{0x1234}, ErrMagic},
		{"too old", []uint64{clientMagic, 1<<8 | 17, 0, 0}, ErrClientTooOld},
		{"ancient", []uint64{clientMagic, 1<<8 | 9, 0, 0}, ErrClientTooOld},
		{"nothing", nil, io.EOF},
		{"half", []uint64{clientMagic}, io.EOF},
		{"many features", []uint64{clientMagic, 1<<8 | 38, 1 << 40}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, server := protocoltest.Pipe(t)
			go func() {
				w := wire.NewWriterSize(client, 64)
				for _, n := range tt.words {
					w.Uint64(n)
					w.Flush()
					if n == clientMagic {
						wire.NewReaderSize(client, 64).Discard(16)
					}
				}
				client.Close()
			}()
			_, _, err := serve(server)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestFutureClient is a client that offers more than there is: it gets what
// there is, and its CPU affinity is skipped.
func TestFutureClient(t *testing.T) {
	client, server := protocoltest.Pipe(t)
	go func() {
		w, r := wire.NewWriter(client), wire.NewReader(client)
		w.Uint64(clientMagic)
		w.Uint64(1<<8 | 99)
		w.Flush()
		r.Discard(16)
		w.Strings([]string{"a-feature-of-2030", string(FeatureRealisationWithPath)})
		w.Flush()
		r.Strings(10, 100)
		w.Uint64(1) // affinity follows
		w.Uint64(3)
		w.Uint64(0)
		w.Flush()
		io.Copy(io.Discard, client)
	}()
	r, _, err := serve(server)
	if err != nil {
		t.Fatal(err)
	}
	if r.Version.Number != Latest || !slices.Equal(r.Version.Features, []Feature{FeatureRealisationWithPath}) {
		t.Errorf("got %v", r.Version)
	}
}
