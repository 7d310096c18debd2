package daemon

import (
	"runtime/debug"
	"strings"
)

// NixVersion is the upstream release whose behaviour we match and that we tell
// clients: the newest that our tests can run beside ours. Clients and scripts
// switch on it.
const NixVersion = "2.34.8"

// Version is our own.
const Version = "0.1.0"

// commit is what the program was built from, set when it is linked
// (contrib/release/compile); empty if that was done otherwise.
var commit string

// versionLine is what --version prints: its third word is the release that
// scripts compare; our own name, version and commit stand behind it.
func versionLine(text string) string {
	own := " (nixdaemon " + Version
	if c := builtFrom(); c != "" {
		own += ", commit " + c
	}
	return withSuffix(text, own+")")
}

// builtFrom is the commit, as the linker or else the go command recorded it;
// empty if neither knew one.
func builtFrom() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return recorded(info.Settings)
}

// commitDigits is as much of a commit's name as people need.
const commitDigits = 12

// recorded is what the go command notes of the tree that it built from.
func recorded(settings []debug.BuildSetting) string {
	var revision, dirty string
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(len(s.Value), commitDigits)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + dirty
}

// withSuffix puts a suffix behind the first line of a text.
func withSuffix(text, suffix string) string {
	first, rest, more := strings.Cut(text, "\n")
	if !more {
		return text + suffix
	}
	return first + suffix + "\n" + rest
}
