package compat

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// serviceManager is one that is not systemd, as the migration guide uses it.
type serviceManager struct {
	init initSystem
	way  string // of the guide's blocks
	// log is where what the daemon says goes.
	log string
	// isUp succeeds when the manager has started the service.
	isUp []string
	// mainPid prints the main process' number.
	mainPid               string
	reload, restart, stop []string
}

func openRC() serviceManager {
	return serviceManager{
		init: initSystem{
			machine: "plain", command: "/sbin/openrc-init", comm: "openrc-init",
			reboot: []string{"openrc-shutdown", "--reboot", "now"}, isUp: []string{"rc-status", "--runlevel"}, up: []string{"default"},
		},
		way: "openrc", isUp: []string{"rc-service", "nix-daemon", "status"}, log: "/var/log/nix-daemon.log", mainPid: "pgrep --parent $(cat /run/supervise-nix-daemon.pid)",
		reload: []string{"rc-service", "nix-daemon", "reload"}, restart: []string{"rc-service", "nix-daemon", "restart"}, stop: []string{"rc-service", "nix-daemon", "stop"},
	}
}

func runit() serviceManager {
	return serviceManager{
		init: initSystem{
			machine: "plain", command: "/sbin/runit", comm: "runit",
			reboot: []string{"/lib/runit/runit-init", "6"}, isUp: []string{"pgrep", "-x", "runsvdir"},
		},
		way: "runit", isUp: []string{"sv", "start", "nix-daemon"}, log: "/var/log/nix-daemon/current", mainPid: "cat /etc/service/nix-daemon/supervise/pid",
		reload: []string{"sv", "reload", "nix-daemon"}, restart: []string{"sv", "-w", "180", "restart", "nix-daemon"}, stop: []string{"sv", "stop", "nix-daemon"},
	}
}

// TestOtherInits installs the daemon by the migration guide on machines whose process 1 is another init system, leads
// the service through its life there, and removes it by the guide.
func TestOtherInits(t *testing.T) {
	t.Parallel()
	c := requireClients(t, referenceVersion)[0]
	pack := tarball(t, ownVersion(t))
	for _, s := range []serviceManager{openRC(), runit()} {
		t.Run(s.way, func(t *testing.T) {
			t.Parallel()
			m := newSystemOf(t, s.init)
			m.env = append([]string{"PATH=/usr/local/bin:" + c.bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}, c.env...)
			m.copyIn(pack)
			m.write("/etc/nix/nix.conf", nixConf, 0o644)
			m.up()
			m.buildUsers()
			m.runUntil("contrib/doc/migrating.md", s.way, "\n## Back\n")
			for _, step := range []struct {
				name string
				run  func(*testing.T, *system, serviceManager)
			}{
				{"reload", managerReloads}, {"restart", managerRestarts}, {"killed", managerReplaces}, {"reboot", managerBoots}, {"stop", managerStops},
			} {
				if !t.Run(step.name, func(t *testing.T) { m.in(t, func(t *testing.T, m *system) { step.run(t, m, s) }) }) {
					log, _ := m.try("tail", "-n", "50", s.log)
					t.Fatalf("the daemon's log:\n%s\nthe machine's:\n%s", log, m.console)
				}
			}
			m.runAfter("contrib/doc/migrating.md", s.way, "\n## Back\n")
			if out, err := m.try("nix-store", "--verify"); err == nil {
				t.Errorf("somebody still listens: %s", out)
			}
		})
	}
}

// buildUsers makes what a multi-user installation has.
func (m *system) buildUsers() {
	m.t.Helper()
	m.must("/bin/sh", "-ec", `groupadd --system nixbld
for i in 1 2 3 4; do useradd --system --no-create-home --home-dir /var/empty --gid nixbld --groups nixbld nixbld$i; done`)
}

func (s serviceManager) main(m *system) string {
	pid, _ := m.try("/bin/sh", "-c", s.mainPid)
	return pid
}

// servers are the main process' children.
func (s serviceManager) servers(m *system) []string {
	out, _ := m.try("pgrep", "--parent", s.main(m))
	return strings.Fields(out)
}

// managerReloads expects another server with the same main process, while a build goes on with the old one.
func managerReloads(t *testing.T, m *system, s serviceManager) {
	b := m.startBuild("reloaded")
	main, old := s.main(m), s.servers(m)
	m.must(s.reload...)
	m.await(func() error {
		if now := s.servers(m); len(now) != 2 || len(old) != 1 || !slices.Contains(now, old[0]) {
			return fmt.Errorf("servers %v, before %v", now, old)
		}
		return nil
	})
	m.build("beside-reloaded")
	b.finish()
	m.await(func() error {
		if now := s.servers(m); len(now) != 1 || now[0] == old[0] {
			return fmt.Errorf("servers %v, before %v", now, old)
		}
		return nil
	})
	if now := s.main(m); now != main {
		t.Errorf("the main process is %s, and was %s", now, main)
	}
}

// managerRestarts expects another main process, which answers at once, while a build goes on.
func managerRestarts(t *testing.T, m *system, s serviceManager) {
	b := m.startBuild("restarted")
	main := s.main(m)
	m.must(s.restart...)
	m.build("beside-restarted")
	b.finish()
	if now := s.main(m); now == main || now == "" {
		t.Errorf("the main process is %q, and was %s", now, main)
	}
}

// managerReplaces kills the main process.
func managerReplaces(t *testing.T, m *system, s serviceManager) {
	b := m.startBuild("orphaned")
	main := s.main(m)
	m.must("kill", "-KILL", main)
	m.await(func() error {
		if now := s.main(m); now == "" || now == main {
			return fmt.Errorf("the main process is %q, and was %s", now, main)
		}
		_, err := m.try("nix-store", "--verify")
		return err
	})
	m.build("beside-orphaned")
	b.finish()
}

// managerBoots expects the daemon to be there after a start of the machine.
func managerBoots(t *testing.T, m *system, s serviceManager) {
	path := m.build("before-reboot")
	m.reboot()
	m.await(func() error { // the daemon may serve before the manager knows that it does, and then cannot be stopped
		_, err := m.try(s.isUp...)
		return err
	})
	m.must("nix-store", "--check-validity", path)
	m.build("rebooted")
}

// managerStops expects nobody to be served any more but who is, and then nothing to be left.
func managerStops(t *testing.T, m *system, s serviceManager) {
	b := m.startBuild("stopped")
	m.must(s.stop...)
	m.await(func() error { // which some managers do not wait for
		if _, err := m.try("nix-store", "--verify"); err == nil {
			return errors.New("clients are still served")
		}
		if out, err := m.try("nix-daemon", "status", "--json"); err != nil || !strings.Contains(out, `"draining"`) || strings.Contains(out, `"serving"`) {
			return fmt.Errorf("the status is %s, %w", out, err)
		}
		return nil
	})
	b.finish()
	m.await(func() error {
		if out, err := m.try("pgrep", "-a", "nix-daemon"); err == nil && !strings.Contains(out, "supervise") {
			return fmt.Errorf("left behind: %s", out)
		}
		return nil
	})
}
