package compat

import "nixdaemon/compat-tests/internal/cutdisk"

// serveIfAsked makes this process a server of a disk whose power can be cut, if it was started for that.
func serveIfAsked() { cutdisk.ServeIfAsked() }
