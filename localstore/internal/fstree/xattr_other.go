//go:build !linux

package fstree

// Upstream removes attributes on Linux alone; elsewhere files keep them.

func removeXattrs(int, []string) error { return nil }

func removeXattrsAt(int, string, []string) error { return nil }

func hasDefaultACL(int) bool { return false }
