// Package protocoltest helps to test both ends of the protocol: [Fixtures]
// finds upstream's golden files, [Pipe] connects two ends in memory.
package protocoltest

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// Fixtures gives upstream's folder of golden data below the given names, such
// as "libstore/worker-protocol", or skips the test. It is looked for in
// NIXDAEMON_FIXTURES, then in shared/fixtures/upstream beside the checkout.
func Fixtures(t testing.TB, names ...string) string {
	t.Helper()
	sub := filepath.Join(names...)
	if dir := os.Getenv("NIXDAEMON_FIXTURES"); dir != "" {
		return mustExist(t, filepath.Join(dir, sub))
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != "/" {
		candidate := filepath.Join(dir, "shared/fixtures/upstream", sub)
		if _, err := os.Stat(candidate); err == nil {
			return candidate
		}
		dir = filepath.Dir(dir)
	}
	t.Skip("upstream's golden files are missing: set NIXDAEMON_FIXTURES to the folder that has " + sub)
	return ""
}

func mustExist(t testing.TB, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("NIXDAEMON_FIXTURES: %v", err)
	}
	return path
}

// Pipe gives the two ends of a connection, closed when the test ends.
func Pipe(t testing.TB) (client, server net.Conn) {
	t.Helper()
	client, server = net.Pipe()
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return client, server
}
