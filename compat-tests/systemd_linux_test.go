package compat

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	service = "nix-daemon.service"
	socket  = "nix-daemon.socket"
	// installed is where "make install" puts the daemon.
	installed = "/usr/local/bin/nix-daemon"
)

// nixConf is the machine's: sandboxed builds by build users, unless a build is asked to be something else.
const nixConf = `sandbox = true
sandbox-fallback = false
sandbox-paths = /bin? /lib? /lib64? /usr
substituters =
trusted-users = root
experimental-features = nix-command ca-derivations dynamic-derivations impure-derivations auto-allocate-uids cgroups recursive-nix
extra-system-features = uid-range recursive-nix
`

// withDaemon is a machine, up, on which our daemon was installed with "make install" and the clients of a release are
// in the PATH; nothing of Debian's Nix is there. Its units are enabled, but not started.
func withDaemon(t *testing.T, version string) *system {
	t.Helper()
	m := withFiles(t, version)
	m.up()
	m.must("systemd-sysusers")
	m.must("systemd-tmpfiles", "--create")
	m.must("systemctl", "enable", socket, service)
	return m
}

// withFiles is such a machine before its first boot.
func withFiles(t *testing.T, version string) *system {
	t.Helper()
	m := newSystem(t)
	c := requireClients(t, version)[0]
	m.env = append([]string{"PATH=/usr/local/bin:" + c.bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}, c.env...)
	cmd := exec.Command("../contrib/install", shared.daemon.path)
	cmd.Env = append(os.Environ(), "DESTDIR="+m.path(""), "PREFIX=/usr/local", "SYSTEM=Linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	m.write("/etc/nix/nix.conf", nixConf, 0o644)
	return m
}

// client starts a client that builds something which goes on until proceed is called.
type heldBuild struct {
	m    *system
	name string
	cmd  *exec.Cmd
	out  lockedBuffer
}

func (m *system) startBuild(name string) *heldBuild {
	m.t.Helper()
	// The pipe belongs to the machine's root, which a builder without a sandbox sees.
	script := fmt.Sprintf("echo %[1]s speaks; echo > /srv/%[1]s.begun; until [ -e /srv/%[1]s.go ]; do sleep 0.05; done; echo %[1]s > $out", name)
	b := &heldBuild{m: m, name: name}
	b.cmd = m.command("nix-build", "--no-out-link", "--option", "sandbox", "false", "-E", shell(name, script))
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	m.write("/srv/.keep", "", 0o644)
	if err := os.Chmod(m.path("/srv"), 0o777); err != nil {
		m.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.await(func() error {
		_, err := os.Stat(m.path("/srv/" + name + ".begun"))
		return err
	})
	return b
}

// finish lets the build end, and its client must have got what it wanted.
func (b *heldBuild) finish() {
	b.m.t.Helper()
	b.m.write("/srv/"+b.name+".go", "", 0o644)
	if err := b.cmd.Wait(); err != nil {
		b.m.fail(fmt.Errorf("the client of %s: %w\n%s", b.name, err, b.out.String()))
	}
	if out := b.out.String(); !strings.Contains(out, "-"+b.name) {
		b.m.fail(fmt.Errorf("the client of %s says %s", b.name, out))
	}
}

// build has a client build something trivial that was not built before.
func (m *system) build(name string) string {
	m.t.Helper()
	return m.must("nix-build", "--no-out-link", "-E", shell(name, "echo "+name+" > $out"))
}

// TestSystemd runs the daemon under a real systemd, for the life of a machine.
func TestSystemd(t *testing.T) {
	t.Parallel()
	m := withDaemon(t, referenceVersion)
	m.must("systemctl", "log-level", "debug") // tells what notifications systemd has got, and of states that pass
	if out, err := m.command("systemd-analyze", "verify", "--man=no", service, socket).CombinedOutput(); err != nil || strings.Contains(string(out), "nix-daemon") {
		t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
	m.must("systemctl", "start", socket)
	if state := m.property(service, "ActiveState"); state != "inactive" {
		t.Errorf("before anybody has connected the service is %s", state)
	}
	first := m.must("nix-build", "--out-link", "/root/first", "-E", shell("activates", "echo > $out"))
	for name, want := range map[string]string{
		"ActiveState": "active", "SubState": "running", "Type": "notify", "NRestarts": "0", "KillMode": "process", "Result": "success",
	} {
		if got := m.property(service, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if report := m.must(installed, "--check-installation"); !strings.Contains(report, "ok    service: nix-daemon.service starts this program: active, enabled") ||
		!strings.Contains(report, "ok    build users: 32 in group nixbld") || !strings.Contains(report, "answers as version "+referenceVersion+"; we are trusted") {
		t.Errorf("the check of the installation says\n%s", report)
	}
	for _, step := range []struct {
		name string
		run  func(*testing.T, *system)
	}{
		{"status", statusNamesBuilds}, {"journal", journalFields}, {"restart", restartInMidBuild}, {"reload", reloadInMidBuild}, {"upgrade", upgradeInMidBuild},
		{"server killed", serverKilled}, {"supervisor killed", supervisorKilled}, {"watchdog", watchdogBites},
		{"hardening", buildsOfEveryKind}, {"read-only store", storeReadOnly}, {"stop", stopInMidBuild},
	} {
		if !t.Run(step.name, func(t *testing.T) { m.in(t, step.run) }) {
			return
		}
	}
	m.must("systemctl", "start", socket)
	boot := m.must("cat", "/proc/sys/kernel/random/boot_id")
	m.reboot()
	if now := m.must("cat", "/proc/sys/kernel/random/boot_id"); now == boot {
		t.Fatal("that was no reboot")
	}
	m.awaitProperty(service, "ActiveState", "active")
	m.must("nix-store", "--check-validity", first)
	m.must("nix-store", "--verify", "--check-contents")
	m.build("rebooted")
	if failed := m.must("systemctl", "list-units", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("failed units: %s", failed)
	}
}

// in runs a part of a test with the machine.
func (m *system) in(t *testing.T, run func(*testing.T, *system)) {
	was := m.t
	m.t = t
	defer func() { m.t = was }()
	run(t, m)
}

// statusNamesBuilds expects "systemctl status" to tell what is being built.
func statusNamesBuilds(t *testing.T, m *system) {
	b := m.startBuild("shown")
	m.await(func() error {
		if text, err := m.try("systemctl", "show", "--property=StatusText", "--value", service); !strings.Contains(text, "Building shown; ") {
			return errors.Join(fmt.Errorf("the status is %q", text), err)
		}
		return nil
	})
	b.finish()
	m.awaitProperty(service, "StatusText", "No build running; 0 clients connected, 0 waiting for an answer")
}

func restartInMidBuild(t *testing.T, m *system) {
	b := m.startBuild("restarted")
	before := m.property(service, "MainPID")
	m.must("systemctl", "restart", service)
	if now := m.property(service, "MainPID"); now == before || now == "0" {
		t.Errorf("the main process is %s, and was %s", now, before)
	}
	m.build("beside-restarted")
	b.finish()
}

func reloadInMidBuild(t *testing.T, m *system) {
	b := m.startBuild("reloaded")
	before := m.property(service, "MainPID")
	ready, reloading := m.journal(service, "READY=1"), m.journal(service, "RELOADING=1")
	old := m.servers()[0]
	m.write("/etc/nix/nix.conf", nixConf+"trusted-users = root nobody\n", 0o644)
	m.must("systemctl", "reload", service)
	m.await(func() error {
		r, l := m.journal(service, "READY=1"), m.journal(service, "RELOADING=1")
		if r <= ready || l <= reloading {
			return fmt.Errorf("systemd has heard READY %d times (%d before), RELOADING %d times (%d before)", r, ready, l, reloading)
		}
		return nil
	})
	m.awaitProperty(service, "SubState", "running")
	if now := m.property(service, "MainPID"); now != before {
		t.Errorf("the main process is %s, and was %s", now, before)
	}
	if now := m.servers(); len(now) != 2 || !slices.Contains(now, old) {
		t.Errorf("servers %v, one of them the old one, %s", now, old)
	}
	m.build("beside-reloaded")
	b.finish()
	m.await(func() error {
		if now := m.servers(); slices.Contains(now, old) {
			return fmt.Errorf("the old server, %s, goes on: %v", old, now)
		}
		return nil
	})
}

// upgradeInMidBuild puts another program in the place of the one that runs.
func upgradeInMidBuild(t *testing.T, m *system) {
	b := m.startBuild("upgraded")
	before, restarts := m.property(service, "MainPID"), m.property(service, "NRestarts")
	m.install(shared.daemon.path, installed)
	m.must("systemctl", "reload", service)
	m.awaitJournal(service, "MAINPID="+before, 1)
	m.awaitProperty(service, "SubState", "running")
	if now := m.property(service, "MainPID"); now != before || m.property(service, "NRestarts") != restarts {
		t.Errorf("the main process is %s, and was %s; %s restarts", now, before, m.property(service, "NRestarts"))
	}
	m.await(func() error {
		running, err := os.Stat(filepath.Join("/proc", m.hostPid(before), "exe"))
		if err != nil {
			return err
		}
		if file, err := os.Stat(m.path(installed)); err != nil || !os.SameFile(running, file) {
			return fmt.Errorf("the main process runs another program: %w", err)
		}
		return nil
	})
	m.build("beside-upgraded")
	b.finish()
}

// servers are the children of the main process, as the machine counts.
func (m *system) servers() []string {
	m.t.Helper()
	out, _ := m.try("pgrep", "--parent", m.property(service, "MainPID"))
	return strings.Fields(out)
}

// hostPid is what a process of the machine is called outside.
func (m *system) hostPid(pid string) string {
	status, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, file := range status {
		text, _ := os.ReadFile(file)
		_, rest, found := strings.Cut(string(text), "\nNSpid:\t")
		line, _, _ := strings.Cut(rest, "\n")
		numbers := strings.Fields(line)
		if found && len(numbers) == 2 && numbers[1] == pid && sameNamespace(numbers[0], m.pid) {
			return numbers[0]
		}
	}
	m.t.Fatalf("no process %s in the machine", pid)
	return ""
}

func sameNamespace(pid string, other int) bool {
	a, err := os.Readlink(filepath.Join("/proc", pid, "ns/pid"))
	b, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", other))
	return err == nil && err2 == nil && a == b
}

// serverKilled expects the supervisor to replace a server, and systemd not to notice.
func serverKilled(t *testing.T, m *system) {
	before, restarts := m.property(service, "MainPID"), m.property(service, "NRestarts")
	m.must(append([]string{"kill", "-KILL"}, m.servers()...)...)
	m.build("server-killed") // who connects meanwhile waits
	if m.property(service, "MainPID") != before || m.property(service, "NRestarts") != restarts {
		t.Error("systemd has restarted the service")
	}
}

// supervisorKilled expects systemd to replace the supervisor, and a build to go on with the server.
func supervisorKilled(t *testing.T, m *system) {
	b := m.startBuild("orphaned")
	before := m.property(service, "MainPID")
	m.must("kill", "-KILL", before)
	m.await(func() error {
		if now, err := m.try("systemctl", "show", "--property=MainPID", "--value", service); now == before || now == "0" {
			return errors.Join(fmt.Errorf("the main process is %s", now), err)
		}
		return nil
	})
	m.build("beside-orphaned")
	b.finish()
	m.awaitProperty(service, "ActiveState", "active")
}

// watchdogBites stops the supervisor, which systemd replaces, and then the server, which the supervisor replaces.
func watchdogBites(t *testing.T, m *system) {
	m.write("/etc/systemd/system/"+service+".d/watchdog.conf", "[Service]\nWatchdogSec=4\nTimeoutAbortSec=1\n", 0o644)
	m.must("systemctl", "daemon-reload")
	m.must("systemctl", "restart", service)
	b := m.startBuild("watched")
	before := m.property(service, "MainPID")
	m.must("kill", "-STOP", before)
	m.await(func() error {
		if now, err := m.try("systemctl", "show", "--property=MainPID", "--value", service); now == before || now == "0" {
			return errors.Join(fmt.Errorf("the main process is %s", now), err)
		}
		return nil
	})
	m.awaitJournal(service, "Watchdog timeout", 1)
	m.build("beside-watched")
	b.finish()

	m.await(func() error { // the server of before has gone, and the new one is ready
		if n := len(m.servers()); n != 1 || m.property(service, "SubState") != "running" {
			return fmt.Errorf("%d servers", n)
		}
		return nil
	})
	main, stopped := m.property(service, "MainPID"), m.servers()[0]
	m.must("kill", "-STOP", stopped)
	m.await(func() error {
		if now := m.servers(); len(now) != 1 || now[0] == stopped {
			return fmt.Errorf("servers %v, stopped was %s", now, stopped)
		}
		return nil
	})
	m.build("server-watched")
	if now := m.property(service, "MainPID"); now != main {
		t.Errorf("systemd has restarted the service: %s, was %s", now, main)
	}
	if err := os.Remove(m.path("/etc/systemd/system/" + service + ".d/watchdog.conf")); err != nil {
		t.Error(err)
	}
	m.must("systemctl", "daemon-reload")
	m.must("systemctl", "restart", service)
}

// stopInMidBuild stops service and socket: what runs goes on, then nothing is left.
func stopInMidBuild(t *testing.T, m *system) {
	b := m.startBuild("stopped")
	m.must("systemctl", "stop", socket, service)
	if out, err := m.try("nix-store", "-q", "--hash", "/nix/store/01pc5aylg0jhkvmdwpzls76q21h8xj9v-nowhere"); err == nil || !strings.Contains(err.Error(), "cannot connect to socket") {
		t.Errorf("a client after the stop: %q, %v", out, err)
	}
	b.finish()
	m.await(func() error {
		if out, err := m.try("pgrep", "-a", "nix-daemon"); err == nil {
			return fmt.Errorf("left behind: %s", out)
		}
		return nil
	})
	for _, unit := range []string{service, socket} {
		if state := m.property(unit, "ActiveState"); state != "inactive" {
			t.Errorf("%s is %s", unit, state)
		}
	}
}

// kindsOfBuilds are derivations that need something of the system; each must be built under the unit's restrictions.
const kindsOfBuilds = `
let
  mk = name: script: more: derivation ({
    inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-euc" script ]; PATH = "/usr/bin:/bin";
  } // more);
  ca = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
in
{
  plain = mk "plain" "id -u > $out; mkdir -p /tmp/x; mount | grep -c ' /proc ' >> $out" { };
  anywhere = mk "anywhere" "id -u; mkdir x; chmod 700 x; cat /proc/self/status > x/status; echo > $out" { };
  fixed = mk "fixed" "echo fixed > $out" { outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fixed\n"; };
  addressed = mk "addressed" "echo $out > $out" ca;
  impure = mk "impure" "echo impure > $out" { __impure = true; };
  multiple = mk "multiple" "echo > $out; echo > $dev" { outputs = [ "out" "dev" ]; };
  structured = mk "structured" ". .attrs.sh; echo x > \${outputs[out]}" { __structuredAttrs = true; builder = "/bin/bash"; };
  fetched = derivation { name = "fetched"; system = "builtin"; builder = "builtin:fetchurl"; url = "file:///usr/local/share/fetch-me"; outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fetched\n"; };
  environment = derivation { name = "environment"; system = "builtin"; builder = "builtin:buildenv"; derivations = [ ]; manifest = builtins.toFile "manifest" ""; };
  range = mk "range" "id -u > $out; chown 7:7 $out; chown 0:0 $out; unshare -m true" { requiredSystemFeatures = [ "uid-range" ]; };
  recursive = mk "recursive" "test -S \${NIX_REMOTE#unix://}; echo > $out" { requiredSystemFeatures = [ "recursive-nix" ]; };
}
`

// buildsOfEveryKind shows that what the unit takes away is nothing that builds need, and that it is taken away.
func buildsOfEveryKind(t *testing.T, m *system) {
	m.write("/srv/kinds.nix", kindsOfBuilds, 0o644)
	m.write("/usr/local/share/fetch-me", "fetched\n", 0o644)
	build := func(name string, args ...string) {
		t.Helper()
		m.must(append([]string{"nix-build", "--no-out-link", "/srv/kinds.nix", "-A", name}, args...)...)
	}
	for _, name := range []string{"plain", "anywhere", "fixed", "addressed", "multiple", "structured", "fetched", "environment"} {
		build(name)
	}
	m.must("nix", "build", "--no-link", "--file", "/srv/kinds.nix", "impure")
	build("recursive")
	build("range", "--option", "auto-allocate-uids", "true", "--option", "use-cgroups", "true")
	for _, args := range [][]string{
		{"--option", "sandbox", "false"}, {"--option", "sandbox", "relaxed"}, {"--option", "build-users-group", ""},
		{"--option", "filter-syscalls", "false"}, {"--option", "use-cgroups", "true"}, {"--option", "allow-new-privileges", "true"},
	} {
		build("anywhere", append([]string{"--check"}, args...)...)
	}
	server := m.servers()[0]
	for _, missing := range []string{"/usr/new", "/etc/new"} {
		if out, err := m.try("nsenter", "--target", server, "--mount", "touch", missing); err == nil {
			t.Errorf("the daemon can write %s: %s", missing, out)
		}
	}
	if caps := m.must("grep", "CapBnd", "/proc/"+server+"/status"); strings.HasSuffix(caps, "ffffffff") {
		t.Errorf("nothing is missing in %s", caps)
	}
}

// storeReadOnly has the store on a read-only mount, as NixOS does, and a unit that gives the daemon no mounts of its
// own: the daemon writes to the store, and nobody else can.
func storeReadOnly(t *testing.T, m *system) {
	m.write("/etc/systemd/system/"+service+".d/mounts.conf", "[Service]\nProtectSystem=no\nPrivateMounts=no\n", 0o644)
	m.must("systemctl", "daemon-reload")
	m.must("mount", "--bind", "/nix/store", "/nix/store")
	m.must("mount", "-o", "remount,bind,ro", "/nix/store")
	m.must("systemctl", "restart", service)
	out := m.build("read-only")
	m.must("test", "-e", out)
	if _, err := m.try("touch", "/nix/store/x"); err == nil {
		t.Error("the store was made writable for everybody")
	}
	// What is mounted later is seen by the daemon, whose roots may lie there.
	m.must("mkdir", "-p", "/mnt/later")
	m.must("mount", "-t", "tmpfs", "later", "/mnt/later")
	m.must("nix-store", "--realise", out, "--add-root", "/mnt/later/root", "--indirect")
	m.must("nix-store", "--gc")
	m.must("nix-store", "--check-validity", out)
	m.must("umount", "/mnt/later")
	m.must("umount", "--lazy", "/nix/store")
	if err := os.Remove(m.path("/etc/systemd/system/" + service + ".d/mounts.conf")); err != nil {
		t.Error(err)
	}
	m.must("systemctl", "daemon-reload")
	m.must("systemctl", "restart", service)
}
