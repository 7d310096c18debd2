package nar

import "strings"

// Magic is the first string of every archive.
const Magic = "nix-archive-1"

// Limits of the format, enforced by upstream since 2.34.7 independently of the host's own.
const (
	// MaxDepth is the number of levels of a tree: the root is the first, so directories nest to 63.
	MaxDepth = 64

	// MaxName is the length of the longest file name in bytes.
	MaxName = 255

	// MaxTarget is the length of the longest target of a symbolic link in bytes.
	MaxTarget = 4095

	// maxTag is far above the longest keyword, so that errors can show what stood in its place.
	maxTag = 32

	// maxString is the longest string other than contents, padded.
	maxString = MaxTarget + 1
)

// ValidName reports whether an archive may contain a file of this name.
func ValidName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= MaxName && !strings.ContainsAny(name, "/\x00")
}

// ValidTarget reports whether an archive may contain a symbolic link to this target.
func ValidTarget(target string) bool {
	return target != "" && len(target) <= MaxTarget && strings.IndexByte(target, 0) < 0
}
