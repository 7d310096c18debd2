package compat

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// runDocument runs the blocks of a document that concern a way, one after the other.
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

// runText runs the blocks of a way, and those of no way in particular. What is shown to be their output must be that.
func (m *system) runText(name, text, way string) {
	m.t.Helper()
	run, out := 0, ""
	m.write("/srv/.cwd", "/srv\n", 0o644) // each block goes on where the one before has ended
	for _, b := range blocks(text) {
		concerns := slices.Contains(b.ways, way) || len(b.ways) == 0
		switch {
		case b.kind == "sh" && concerns:
			run++
			out = m.must("/bin/bash", "-ec", "cd \"$(cat /srv/.cwd)\"\n"+b.text+"\npwd > /srv/.cwd")
		case b.kind == "output" && concerns:
			m.wantShown(name, b.text, out)
		}
	}
	if run == 0 {
		m.t.Errorf("nothing of %s was run", name)
	}
}

// wantShown looks for the lines that a document shows, in their order; "…" stands for anything.
func (m *system) wantShown(name, shown, out string) {
	m.t.Helper()
	for line := range strings.Lines(shown) {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSuffix(line, "\n")), "…", ".*")
		at := regexp.MustCompile("(?m)^" + pattern + "$").FindStringIndex(out)
		if at == nil {
			m.t.Errorf("%s shows %q, but the rest of the output is %q", name, line, out)
			return
		}
		out = out[at[1]:]
	}
}

// TestDocumentedOperation runs the commands of the operator's guide, of the pages about status and metrics, of the
// manuals, and those in the text of any document that can be run as they stand.
func TestDocumentedOperation(t *testing.T) {
	t.Parallel()
	m := withDaemon(t, referenceVersion)
	m.must("systemctl", "start", socket)
	m.runDocument("contrib/doc/operating.md", "")
	for _, part := range []struct {
		name string
		run  func(*testing.T, *system)
	}{{"status", documentedStatus}, {"metrics", documentedMetrics}, {"manuals", documentedManuals}, {"text", documentedText}} {
		t.Run(part.name, func(t *testing.T) { m.in(t, part.run) })
	}
}

// documentedStatus runs the commands of status.md. Some of them are about a build that goes on.
func documentedStatus(t *testing.T, m *system) {
	const page = "contrib/doc/status.md"
	for _, b := range blocks(documents(t)[page]) {
		if b.kind != "sh" {
			continue
		}
		switch strings.Join(b.ways, " ") {
		case "":
			m.must("/bin/bash", "-ec", b.text)
		case "watch": // until it is interrupted, which is no failure
			m.must("/bin/bash", "-emc", strings.TrimSpace(b.text)+" > /srv/watched &\nuntil [ -s /srv/watched ]; do sleep 0.1; done\nkill -INT %1\nwait %1")
		case "follow":
			m.followBuild(t, b.text)
		case "stored":
			if out := m.must("/bin/bash", "-ec", b.text); !strings.Contains(out, "followed speaks") {
				t.Errorf("the stored log is %q", out)
			}
		case "cancel":
			build := m.startBuild("cancelled")
			m.env = append(m.env, "BUILD=cancelled")
			m.must("/bin/bash", "-ec", b.text)
			if err := build.cmd.Wait(); err == nil {
				t.Errorf("the cancelled build succeeds: %s", build.out.String())
			}
		}
	}
}

// followBuild reads the log of a build along until that ends, and calls its output STORE_PATH.
func (m *system) followBuild(t *testing.T, command string) {
	t.Helper()
	build := m.startBuild("followed")
	m.env = append(m.env, "BUILD=followed")
	follow := m.command("/bin/bash", "-ec", command)
	var out lockedBuffer
	follow.Stdout, follow.Stderr = &out, &out
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	m.await(func() error {
		if text := out.String(); !strings.Contains(text, "followed speaks") {
			return fmt.Errorf("the log so far: %q", text)
		}
		return nil
	})
	build.finish()
	if err := follow.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(build.out.String()), "\n")
	m.env = append(m.env, "STORE_PATH="+lines[len(lines)-1])
}

// documentedMetrics runs the commands of metrics.md.
func documentedMetrics(t *testing.T, m *system) {
	m.must("/bin/sh", "-ec", "dpkg --force-depends --unpack /srv/debs/curl_*.deb /srv/debs/lib*.deb; ldconfig")
	m.runDocument("contrib/doc/metrics.md", "")
}

// documentedManuals runs the examples of the manuals: lines of the kind Dl, and literal blocks.
func documentedManuals(t *testing.T, m *system) {
	pages, err := filepath.Glob("../contrib/man/*.[58]")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no manuals: %v", err)
	}
	run := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, example := range regexp.MustCompile(`(?ms)^\.Dl (.*?)$|^\.Bd -literal[^\n]*\n(.*?)^\.Ed$`).FindAllStringSubmatch(string(text), -1) {
			run++
			m.must("/bin/bash", "-ec", example[1]+example[2])
		}
		if strings.Contains(string(text), ".Bd") != strings.Contains(string(text), ".Bd -literal") {
			t.Errorf("%s has a display of another kind", page)
		}
	}
	if run == 0 {
		t.Error("no examples")
	}
}

// documentedText runs the commands outside of blocks that stand for themselves, the daemon running before each.
func documentedText(t *testing.T, m *system) {
	m.env = append(m.env, "SYSTEMD_PAGER=cat")
	commands := inlineCommands()
	for _, command := range slices.Sorted(maps.Keys(commands)) {
		if commands[command] != onMachine {
			continue
		}
		m.must("systemctl", "start", socket, service)
		if _, err := m.try("/bin/bash", "-ec", command); err != nil {
			t.Error(err)
		}
	}
}

// TestDocumentedReadme runs the commands of the README: those for the sources in a copy of them, installing into a
// machine that has Debian's Nix, and the others there.
func TestDocumentedReadme(t *testing.T) {
	t.Parallel()
	m := newSystem(t)
	c := requireClients(t, referenceVersion)[0]
	m.up()
	m.must("/bin/sh", "-c", "dpkg -i /srv/debs/*.deb")
	m.write("/etc/nix/nix.conf", "sandbox = false\nsubstituters =\n", 0o644)
	m.reboot() // Debian's units get in each other's way until then
	top := filepath.Join(t.TempDir(), "sources")
	if out, err := exec.Command("cp", "-R", "--preserve=mode", "..", top).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const name = "README.md"
	for _, b := range blocks(documents(t)[name]) {
		if b.kind != "sh" || !slices.Contains(b.ways, "sources") {
			continue
		}
		cmd := exec.Command("/bin/bash", "-ec", b.text)
		cmd.Dir = top
		cmd.Env = append(append(os.Environ(), c.env...), "DESTDIR="+m.path(""), "PATH="+c.bin+":"+os.Getenv("PATH"), "GOFLAGS=-trimpath -buildvcs=false")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	m.runDocument(name, "machine")
	if version := m.must("nix-daemon", "--version"); !strings.Contains(version, ownVersion(t)) {
		t.Errorf("the daemon is %s", version)
	}
	m.build("readme")
}

// TestDocumentedMigration runs the commands of the migration guide in both ways, on a machine with Debian's Nix. In the
// third Debian's package is purged when the tarball has been installed.
func TestDocumentedMigration(t *testing.T) {
	const name, back = "contrib/doc/migrating.md", "\n## Back\n"
	for way, pack := range map[string]func(*testing.T, string) string{"debian": debianPackage, "tarball": tarball, "purged": tarball} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			m := newSystem(t)
			m.copyIn(pack(t, ownVersion(t)))
			m.up()
			m.must("/bin/sh", "-c", "dpkg -i /srv/debs/*.deb")
			m.write("/etc/nix/nix.conf", "sandbox = false\nsubstituters =\n", 0o644)
			m.reboot() // Debian's units get in each other's way until then
			if way != "purged" {
				m.runDocument(name, way)
				return
			}
			m.runUntil(name, "tarball", back)
			m.must("dpkg", "-P", "nix-setup-systemd")
			m.write("/etc/nix/nix.conf", "sandbox = false\nsubstituters =\n", 0o644)
			if _, err := m.try("nix-store", "--verify"); err == nil {
				t.Error("the purge does not stop what has the names of its units")
			}
			for _, b := range blocks(documents(t)[name]) {
				if slices.Contains(b.ways, way) {
					m.must("/bin/bash", "-ec", b.text)
				}
			}
			m.build("purged")
			m.reboot()
			m.build("purged-rebooted")
			if version := m.must("nix-daemon", "--version"); !strings.Contains(version, ownVersion(t)) {
				t.Errorf("the daemon is %s", version)
			}
		})
	}
}
