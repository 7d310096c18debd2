//go:build !linux

package build

// canIsolate tells whether there are builders with a root of their own on this system.
const canIsolate = false
