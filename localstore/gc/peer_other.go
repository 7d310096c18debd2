//go:build !linux

package gc

import "net"

// peerPID gives 0: whoever connects is taken for another process.
func peerPID(net.Conn) int { return 0 }
