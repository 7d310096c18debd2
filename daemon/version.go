package daemon

// NixVersion is the upstream release whose behaviour we match and that we tell
// clients: the newest that our tests can run beside ours. Clients and scripts
// switch on it.
const NixVersion = "2.34.8"

// Version is our own.
const Version = "0.1.0"

// versionLine is what --version prints: its third word is the release that
// scripts compare; our own name and version stand behind it.
func versionLine(text string) string {
	return withSuffix(text, " (nixdaemon "+Version+")")
}

// withSuffix puts a suffix behind the first line of a text.
func withSuffix(text, suffix string) string {
	for i := range len(text) {
		if text[i] == '\n' {
			return text[:i] + suffix + text[i:]
		}
	}
	return text + suffix
}
