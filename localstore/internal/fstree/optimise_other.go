//go:build !linux

package fstree

import "strings"

const canLinkSymlinks = false

// excludedFromLinking tells of files in application bundles, which macOS does not let have several names.
func excludedFromLinking(path func() string) bool {
	_, rest, found := strings.Cut(path(), ".app/Contents/")
	return found && rest != ""
}
