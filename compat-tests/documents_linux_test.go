package compat

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// shellBlock is a piece of a document that is to be run: by everybody, or by those who have installed in a certain way.
var shellBlock = regexp.MustCompile("(?s)```sh(?: (\\w+))?\n(.*?)```")

// runDocument runs the pieces of a document that concern a way, one after the other.
func (m *system) runDocument(name, way string) {
	m.t.Helper()
	run := 0
	for _, block := range shellBlock.FindAllStringSubmatch(documents(m.t)[name], -1) {
		if block[1] != "" && block[1] != way {
			continue
		}
		run++
		m.must("/bin/bash", "-ec", "cd /srv\n"+block[2])
	}
	if run == 0 {
		m.t.Errorf("nothing of %s was run", name)
	}
}

// TestDocumentedOperation runs the commands of the operator's guide.
func TestDocumentedOperation(t *testing.T) {
	t.Parallel()
	m := withDaemon(t, referenceVersion)
	m.must("systemctl", "start", socket)
	m.runDocument("operating.md", "")
}

// TestDocumentedMigration runs the commands of the migration guide in both ways, on a machine with Debian's Nix.
func TestDocumentedMigration(t *testing.T) {
	for way, pack := range map[string]func(*testing.T, string) string{"debian": debianPackage, "tarball": tarball} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			m := newSystem(t)
			m.copyIn(pack(t, ownVersion(t)))
			m.up()
			m.must("/bin/sh", "-c", "dpkg -i /srv/debs/*.deb")
			m.write("/etc/nix/nix.conf", "sandbox = false\nsubstituters =\n", 0o644)
			m.reboot() // Debian's units get in each other's way until then
			m.runDocument("migrating.md", way)
		})
	}
}

// TestDocumentsSayHowTheyAreRun knows all kinds of blocks that there are.
func TestDocumentsSayHowTheyAreRun(t *testing.T) {
	fence := regexp.MustCompile("(?m)^```(.*)$")
	for name, text := range documents(t) {
		open := false
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			open = !open
			if open && !slices.Contains([]string{"sh", "sh debian", "sh tarball", "conf"}, strings.TrimSpace(m[1])) {
				t.Errorf("%s has a block of the kind %q, of which no test knows", name, m[1])
			}
		}
		if open {
			t.Errorf("%s has a block without an end", name)
		}
	}
}
