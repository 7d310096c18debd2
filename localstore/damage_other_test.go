//go:build !linux

package localstore

// mountCases are media that cannot be written; how to make some is only known on Linux.
func mountCases() []damageCase { return nil }
