package compat

import "nixdaemon/compat-tests/internal/cutdisk"

// serveIfAsked makes this process a server of a disk whose power can be cut, or somebody's end of a daemon, if it was started for that.
func serveIfAsked() {
	relayIfAsked()
	cutdisk.ServeIfAsked()
}
