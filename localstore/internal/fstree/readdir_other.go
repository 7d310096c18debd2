//go:build !linux

package fstree

import "golang.org/x/sys/unix"

func parseDirents(buf []byte, out []entry) []entry {
	_, _, names := unix.ParseDirent(buf, -1, nil)
	for _, name := range names {
		out = append(out, entry{name: name})
	}
	return out
}
