package transfer

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
)

// TestDialLocalhost: names beneath localhost are asked of nobody, and both of its addresses are tried.
func TestDialLocalhost(t *testing.T) {
	refused := errors.New("refused")
	for _, test := range []struct {
		address string
		up      string // who answers
		want    []string
	}{
		{"bucket.localhost:9000", "127.0.0.1:9000", []string{"127.0.0.1:9000"}},
		{"a.b.LocalHost.:9000", "[::1]:9000", []string{"127.0.0.1:9000", "[::1]:9000"}},
		{"bucket.localhost:9000", "", []string{"127.0.0.1:9000", "[::1]:9000"}},
		{"localhost:9000", "localhost:9000", []string{"localhost:9000"}}, // as /etc/hosts has it
		{"localhost.example.org:80", "", []string{"localhost.example.org:80"}},
		{"notlocalhost:80", "", []string{"notlocalhost:80"}},
		{"nonsense", "", []string{"nonsense"}},
	} {
		var asked []string
		dial := dialLocalhost(func(_ context.Context, _, address string) (net.Conn, error) {
			asked = append(asked, address)
			if address == test.up {
				return &net.TCPConn{}, nil
			}
			return nil, refused
		})
		conn, err := dial(t.Context(), "tcp", test.address)
		if !slices.Equal(asked, test.want) {
			t.Errorf("%s: asked %q, want %q", test.address, asked, test.want)
		}
		if up := test.up != ""; up != (conn != nil) || up != (err == nil) || !up && !errors.Is(err, refused) {
			t.Errorf("%s: %v, %v", test.address, conn, err)
		}
	}
}
