package compat

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// debianPackage makes the package of the daemon under test.
func debianPackage(t *testing.T, version string) string {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("no dpkg-deb here")
	}
	dir := t.TempDir()
	cmd := exec.Command("../contrib/debian/build", shared.daemon.path, version, runtime.GOARCH, dir)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000", "TMPDIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the package: %v: %s", err, out)
	}
	return filepath.Join(dir, fmt.Sprintf("nixdaemon_%s_%s.deb", version, runtime.GOARCH))
}

// tarball makes the one of the daemon under test.
func tarball(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("../contrib/release/tarball", shared.daemon.path, version, runtime.GOARCH, dir).CombinedOutput(); err != nil {
		t.Fatalf("make the tarball: %v: %s", err, out)
	}
	return filepath.Join(dir, fmt.Sprintf("nixdaemon-%s-linux-%s.tar.gz", version, runtime.GOARCH))
}

// copyIn puts a file of this system into the machine.
func (m *system) copyIn(file string) string {
	m.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	name := filepath.Join("/srv", filepath.Base(file))
	m.write(name, string(data), 0o644)
	return name
}

// TestDebianPackage installs our package on a machine with Debian's Nix, upgrades and removes it, builds going on all
// the time, and then does the same where there is no Nix.
func TestDebianPackage(t *testing.T) {
	t.Parallel()
	m := newSystem(t)
	version := ownVersion(t)
	ours, newer := m.copyIn(debianPackage(t, version)), m.copyIn(debianPackage(t, version+".1"))
	m.up()
	m.must("/bin/sh", "-c", "dpkg -i /srv/debs/*.deb")
	m.write("/etc/nix/nix.conf", "sandbox = false\nsubstituters =\n", 0o644) // as the package has it
	// Its units get in each other's way until then.
	m.reboot()
	served := func(by, kind string) {
		t.Helper()
		if version := m.must("nix-daemon", "--version"); version != by {
			t.Errorf("the daemon is %q, want %q", version, by)
		}
		if got := m.property(service, "Type"); got != kind {
			t.Errorf("the unit's type is %q, want %q", got, kind)
		}
		m.awaitProperty(service, "ActiveState", "active")
		want := m.must("stat", "-Lc", "%d:%i", "/usr/bin/nix-daemon")
		if got := m.must("stat", "-Lc", "%d:%i", "/proc/"+m.property(service, "MainPID")+"/exe"); got != want {
			t.Errorf("the service runs another program than /usr/bin/nix-daemon")
		}
	}
	const upstream = "nix-daemon (Nix) 2.8.0"
	own, err := exec.Command(shared.daemon.path, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	ourVersion := strings.TrimSpace(string(own))
	inode := m.must("stat", "-c", "%i", "/nix/var/nix/daemon-socket/socket")

	served(upstream, "simple")
	before := m.build("before")

	across := m.startBuild("installation")
	m.must("dpkg", "-i", ours)
	served(ourVersion, "notify")
	m.must("nix-store", "--check-validity", before)
	during := m.build("during")
	if report := m.must("nix-daemon", "--check-installation"); !strings.Contains(report, "ok    service: nix-daemon.service starts this program") {
		t.Errorf("the check of the installation says\n%s", report)
	}
	across.finish()
	if mode := m.must("stat", "-c", "%a %G", "/nix/var/nix/daemon-socket"); mode != "770 nix-users" {
		t.Errorf("who may reach the socket has changed: %s", mode)
	}

	across = m.startBuild("upgrade")
	main := m.property(service, "MainPID")
	m.must("dpkg", "-i", newer)
	m.awaitProperty(service, "SubState", "running")
	if now := m.property(service, "MainPID"); now != main {
		t.Errorf("the upgrade has restarted the service: %s, was %s", now, main)
	}
	m.build("upgraded-package")
	across.finish()

	across = m.startBuild("removal")
	m.must("dpkg", "-r", "nixdaemon")
	served(upstream, "simple")
	m.must("nix-store", "--check-validity", during)
	m.build("after")
	across.finish()
	if now := m.must("stat", "-c", "%i", "/nix/var/nix/daemon-socket/socket"); now != inode {
		t.Error("the socket was closed in between")
	}
	m.must("nix-store", "--verify", "--check-contents")
	m.must("dpkg", "-P", "nixdaemon")
	m.nothingLeft(t)

	m.outlivesTheirs(t, ours)
	m.must("dpkg", "-P", "nix-bin")
	m.alone(t, ours)
}

// outlivesTheirs removes, and then purges, the package whose units have the names of ours, which that stops and disables.
func (m *system) outlivesTheirs(t *testing.T, ours string) {
	t.Helper()
	m.must("dpkg", "-i", ours)
	for _, how := range []string{"-r", "-P"} {
		b := m.startBuild("their" + how)
		m.must("dpkg", how, "nix-setup-systemd")
		m.write("/etc/nix/nix.conf", "sandbox = false\nsubstituters =\n", 0o644) // which the purge deletes
		for _, unit := range []string{service, socket} {
			m.awaitProperty(unit, "ActiveState", "active")
			if state := m.property(unit, "UnitFileState"); state != "enabled" {
				t.Errorf("after dpkg %s of theirs %s is %s", how, unit, state)
			}
		}
		m.must("systemctl", "reload", service)
		m.build("without-their" + how)
		b.finish()
	}
	m.reboot()
	m.awaitProperty(service, "ActiveState", "active")
	m.build("without-theirs-rebooted")
	m.must("dpkg", "-P", "nixdaemon")
	m.nothingLeft(t)
}

// nothingLeft expects no trace of our package.
func (m *system) nothingLeft(t *testing.T) {
	t.Helper()
	if out := m.must("dpkg-divert", "--list", "*nix-daemon*"); out != "" {
		t.Errorf("diversions are left: %s", out)
	}
	out, _ := m.try("find", "/usr", "/lib", "/etc", "/var/lib/dpkg/info", "-name", "*nixdaemon*", "-o", "-name", "nix-daemon*.upstream")
	if out != "" {
		t.Errorf("files are left: %s", out)
	}
}

// alone is the package on a machine without Nix; the client is brought along.
func (m *system) alone(t *testing.T, ours string) {
	t.Helper()
	c := requireClients(t, referenceVersion)[0]
	m.env = append([]string{"PATH=" + c.bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}, c.env...)
	m.must("dpkg", "-i", ours)
	m.write("/etc/nix/nix.conf", nixConf, 0o644)
	m.must("systemctl", "reload", service)
	m.build("alone")
	m.reboot()
	m.build("alone-rebooted")
	m.must("dpkg", "-r", "nixdaemon")
	for _, unit := range []string{service, socket} {
		if state := m.property(unit, "ActiveState"); state != "inactive" {
			t.Errorf("after the removal %s is %s", unit, state)
		}
	}
	m.must("dpkg", "-P", "nixdaemon")
	m.nothingLeft(t)
	if out, _ := m.try("find", "/etc/systemd/system", "-name", "nix-daemon*"); out != "" {
		t.Errorf("the units are still enabled: %s", out)
	}
	m.must("test", "-e", "/nix/store")
}

// TestReproducible makes tarball and package twice, from copies of the sources in different places, and expects the
// same bytes; then what the tarball has is installed.
func TestReproducible(t *testing.T) {
	t.Parallel()
	requireClients(t)
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("no dpkg-deb here")
	}
	var made [2]map[string][]byte
	for i := range made {
		top := filepath.Join(t.TempDir(), strings.Repeat("deeper/", i), "sources")
		if err := os.MkdirAll(filepath.Dir(top), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-R", "--preserve=mode", "..", top).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		cmd := exec.Command(filepath.Join(top, "contrib/release/build"), filepath.Join(top, "out"), runtime.GOARCH)
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000", "COMMIT=0123456789ab")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		made[i] = make(map[string][]byte)
		files, _ := filepath.Glob(filepath.Join(top, "out/*"))
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			made[i][filepath.Base(file)] = data
		}
	}
	tarball := fmt.Sprintf("nixdaemon-%s-linux-%s.tar.gz", ownVersion(t), runtime.GOARCH)
	for _, name := range []string{tarball, fmt.Sprintf("nixdaemon_%s_%s.deb", ownVersion(t), runtime.GOARCH), "SHA256SUMS"} {
		if len(made[0][name]) == 0 || !bytes.Equal(made[0][name], made[1][name]) {
			t.Errorf("%s: %d and %d bytes, not the same", name, len(made[0][name]), len(made[1][name]))
		}
	}
	checkTarball(t, made[0][tarball])
}

// checkTarball installs what a tarball has.
func checkTarball(t *testing.T, data []byte) {
	t.Helper()
	dir := t.TempDir()
	unpack := exec.Command("tar", "-xz", "--strip-components=1", "-C", dir)
	unpack.Stdin = bytes.NewReader(data)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dest := t.TempDir()
	cmd := exec.Command(filepath.Join(dir, "install"), filepath.Join(dir, "nix-daemon"))
	cmd.Env = append(os.Environ(), "DESTDIR="+dest, "PREFIX=/opt/nd", "SYSTEM=Linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(filepath.Join(dest, "opt/nd/bin/nix-daemon"), "--version").Output()
	if want := fmt.Sprintf("nix-daemon (Nix) %s (nixdaemon %s, commit 0123456789ab)\n", referenceVersion, ownVersion(t)); err != nil || string(out) != want {
		t.Errorf("version %q, %v; want %q", out, err, want)
	}
	unit, err := os.ReadFile(filepath.Join(dest, "opt/nd/lib/systemd/system/nix-daemon.service"))
	if err != nil || !bytes.Contains(unit, []byte("\nExecStart=@/opt/nd/bin/nix-daemon nix-daemon --daemon\n")) {
		t.Errorf("the unit does not start what was installed: %v\n%s", err, unit)
	}
}
