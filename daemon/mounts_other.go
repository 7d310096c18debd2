//go:build !linux

package daemon

func needsOwnMounts(string) bool { return false }

func hasOwnMounts() bool { return false }
