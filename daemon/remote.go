package daemon

import (
	"nixdaemon/worker/remote"
)

// newRemote prepares building on other machines.
func newRemote(b *local) *remote.Builders {
	return remote.New(remote.Options{Dir: b.store.Dir(), Log: b.log})
}
