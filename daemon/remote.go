package daemon

import (
	"nixdaemon/worker/remote"
)

// newRemote prepares building on other machines. self is this program.
func newRemote(b *local, self string) *remote.Builders {
	return remote.New(remote.Options{
		Store: b.store, Dir: b.store.Dir(), StateDir: b.store.StateDir(), SocketPath: b.cfg.SocketPath,
		Self: self, IDs: &b.ids, Log: b.log,
	})
}
