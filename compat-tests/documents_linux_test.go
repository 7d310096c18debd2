package compat

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// shellBlock is a piece of a document that is to be run: by everybody, or by those who have installed in certain ways.
var shellBlock = regexp.MustCompile("(?ms)^```sh((?: \\w+)*)\n(.*?)^```$")

// runDocument runs the pieces of a document that concern a way, one after the other.
func (m *system) runDocument(name, way string) {
	m.t.Helper()
	m.runText(name, documents(m.t)[name], way)
}

// runUntil runs what stands before a heading.
func (m *system) runUntil(name, way, heading string) {
	m.t.Helper()
	before, _ := m.cutDocument(name, heading)
	m.runText(name, before, way)
}

// runAfter runs what follows a heading.
func (m *system) runAfter(name, way, heading string) {
	m.t.Helper()
	_, after := m.cutDocument(name, heading)
	m.runText(name, after, way)
}

func (m *system) cutDocument(name, heading string) (before, after string) {
	m.t.Helper()
	before, after, found := strings.Cut(documents(m.t)[name], heading)
	if !found {
		m.t.Fatalf("%s has no %q", name, heading)
	}
	return before, after
}

func (m *system) runText(name, text, way string) {
	m.t.Helper()
	run := 0
	m.write("/srv/.cwd", "/srv\n", 0o644) // each piece goes on where the one before has ended
	for _, block := range shellBlock.FindAllStringSubmatch(text, -1) {
		if ways := strings.Fields(block[1]); len(ways) > 0 && !slices.Contains(ways, way) {
			continue
		}
		run++
		m.must("/bin/bash", "-ec", "cd \"$(cat /srv/.cwd)\"\n"+block[2]+"\npwd > /srv/.cwd")
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
			if kind := strings.Fields(m[1]); open && (len(kind) == 0 || !slices.Contains([]string{"sh", "conf"}, kind[0])) {
				t.Errorf("%s has a block of the kind %q, of which no test knows", name, m[1])
			}
		}
		if open {
			t.Errorf("%s has a block without an end", name)
		}
	}
}
