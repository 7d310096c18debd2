package daemon

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// remoteConfig is a configuration with another daemon's store.
func remoteConfig(t *testing.T, uri, socket string) *config.Config {
	t.Helper()
	ref, err := settings.ParseStoreReference(uri)
	if err != nil {
		t.Fatal(err)
	}
	return &config.Config{
		Settings: settings.Defaults(settings.Environment{System: "x86_64-linux", CPUs: 1}),
		Store:    config.StoreConfig{Kind: config.StoreRemote, Reference: ref, StoreDir: "/nix/store", SocketPath: socket},
	}
}

// TestOwnSocket ends at once what would connect to itself for ever.
func TestOwnSocket(t *testing.T) {
	var b backend
	ready := make(chan struct{})
	trusted := true
	socket, _ := start(t, &Server{Policy: everybody, Trust: &trusted, Serve: func(ctx context.Context, s io.ReadWriter, p Peer) error {
		<-ready
		return b.serve(ctx, s, p)
	}})
	var err error
	if b, err = assemble(t.Context(), remoteConfig(t, "unix://"+socket, socket), 0, zerolog.Nop(), new(observers), []string{socket}); err != nil {
		t.Fatal(err)
	}
	close(ready)
	c := client.New(client.Options{Dial: client.Unix(socket)})
	defer c.Close()
	info, err := c.Server(t.Context())
	if err != nil || info.Trust != protocol.TrustUnknown {
		t.Errorf("got trust %v, %v", info.Trust, err)
	}
	_, err = c.IsValid(t.Context(), storepath.Path{})
	if err == nil {
		t.Fatal("no error")
	}
	if _, err = c.AllValidPaths(t.Context()); err == nil || !strings.Contains(err.Error(), "it belongs to this daemon itself") {
		t.Errorf("got %v", err)
	}
}

func TestOtherRemoteStores(t *testing.T) {
	_, err := assemble(t.Context(), remoteConfig(t, "unheard-of://", ""), 0, zerolog.Nop(), new(observers), nil)
	if err == nil || err.Error() != "cannot serve store 'unheard-of://': only local stores and those of other daemons can be served" {
		t.Errorf("got %v", err)
	}
}
