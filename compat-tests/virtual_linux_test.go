package compat

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// virtualConf has every build in a cgroup, and bounds it.
const virtualConf = nixConf + "use-cgroups = true\nmax-build-memory = 67108864\nmax-build-processes = 40\n"

// virtualBuilds are what the machine's clients build.
const virtualBuilds = `
let
  mk = name: script: more: derivation ({
    inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-ec" script ]; PATH = "/usr/sbin:/usr/bin:/sbin:/bin";
  } // more);
  hold = "sleep 1001 >/dev/null 2>&1 & echo > /srv/begun; until [ -e /srv/go ]; do sleep 0.1; done; echo held > $out";
in
{
  modest = mk "modest" "echo > $out" { };
  other = mk "other" "echo > $out" { };
  bomb = mk "bomb" "while :; do sleep 1001 >/dev/null 2>&1 & done" { };
  goes-on = mk "goes-on" "bomb() { bomb | bomb & }; bomb 2>/dev/null; i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; echo > $out" { };
  hog = mk "hog" "(x=0123456789; while :; do x=$x$x; done) & wait; sleep 1001" { };
  stays = mk "stays" "setsid env -i /bin/sh -c 'sleep 1001 & sleep 1001' >/dev/null 2>&1 & until ps ax | grep -q '[ ]1001'; do :; done; echo > $out" { };
  held = mk "held" hold { };
  orphan = mk "orphan" hold { };
}
`

// virtualUnit is what the service has there in addition. A daemon that may not be killed for want of memory has builders
// that may be. A machine that is emulated by a busy one is slow.
const virtualUnit = "[Service]\nOOMScoreAdjust=-1000\nTimeoutStartSec=10min\nTimeoutStopSec=10min\nWatchdogSec=30min\n"

// TestVirtualMachine shows what no other test can on a machine without controllers of cgroups: in a virtual machine with
// a kernel of its own, whose cgroups systemd divides among services.
func TestVirtualMachine(t *testing.T) {
	t.Parallel()
	emulator(t) // before what takes time, too
	m := withFiles(t, referenceVersion)
	m.write("/etc/nix/nix.conf", virtualConf, 0o644)
	m.write("/srv/builds.nix", virtualBuilds, 0o644)
	m.write("/etc/systemd/system/"+service+".d/slow.conf", virtualUnit, 0o644)
	v := newVirtual(t, m, compiledTests(t))
	v.must("systemctl is-system-running --wait || systemctl --failed; chmod 777 /srv")
	for _, step := range []struct {
		name string
		run  func(*testing.T, *virtual)
	}{
		{"limits", limitsInVirtual}, {"restart", restartInVirtual}, {"crash", crashInVirtual}, {"tests of packages", packagesInVirtual},
	} {
		t.Run(step.name, func(t *testing.T) {
			was := v.t
			v.t = t
			defer func() { v.t = was }()
			step.run(t, v)
		})
	}
}

// packageTests are tests that need controllers, or cgroups like those of version 2 alone.
var packageTests = []struct{ name, dir, run string }{
	{"cgroup", "../sandbox/cgroup", "^Test"},
	{"build", "../worker/build", "^Test(Cgroup.*|UIDRange)$"},
}

// skippedInVirtual tells of the tests that need a machine without controllers.
var skippedInVirtual = regexp.MustCompile(`^Test(CgroupLimitNeedsController|AdoptNeedsController)$`)

// compiledTests are the programs of those tests.
func compiledTests(t *testing.T) map[string]string {
	t.Helper()
	programs := make(map[string]string)
	for _, p := range packageTests {
		program := filepath.Join(t.TempDir(), p.name)
		cmd := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-o", program, ".")
		cmd.Dir, cmd.Env = p.dir, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("compile the tests of %s: %v\n%s", p.dir, err, out)
		}
		programs[p.name+".test"] = program
	}
	return programs
}

// packagesInVirtual runs tests of packages in the root of the cgroups, the only one that has processes and gives
// controllers. None may be skipped.
func packagesInVirtual(t *testing.T, v *virtual) {
	passed := 0
	for _, p := range packageTests {
		out, err := v.try(fmt.Sprintf("echo $$ > /sys/fs/cgroup/cgroup.procs; unset NIX_REMOTE; ./%s.test -test.v -test.timeout=4m -test.run='%s'", p.name, p.run))
		if err != nil {
			t.Errorf("%s: %v\n%s", p.dir, err, out)
		}
		for line := range strings.Lines(out) {
			verdict, rest, _ := strings.Cut(strings.TrimSpace(line), ": ")
			name, _, _ := strings.Cut(rest, " ")
			switch verdict {
			case "--- PASS":
				passed++
			case "--- SKIP":
				if !skippedInVirtual.MatchString(name) {
					t.Errorf("%s: %s was skipped\n%s", p.dir, name, out)
				}
			}
		}
	}
	if passed < 20 {
		t.Errorf("%d tests have passed", passed)
	}
	t.Logf("%d tests", passed)
}

// build has a client build something of virtualBuilds and gives what it printed.
func (v *virtual) build(name string, args ...string) (string, error) {
	return v.try("nix-build --no-out-link builds.nix -A " + name + " " + strings.Join(args, " ") + " 2>&1")
}

// nothingStays expects that of all builds no process and no cgroup is left.
func (v *virtual) nothingStays() {
	v.t.Helper()
	if out, err := v.try("! ps ax | grep '[ ]1001' && ! ls -d /sys/fs/cgroup/system.slice/*/nix-build-* 2>/dev/null"); err != nil {
		v.t.Errorf("processes or cgroups are left: %v\n%s", err, out)
	}
}

// limitsInVirtual has builders take more than they may.
func limitsInVirtual(t *testing.T, v *virtual) {
	for _, c := range []struct {
		name, args, text string
	}{
		{"bomb", "", "Cannot fork"},
		{"bomb", "--option sandbox false", "Cannot fork"},
		{"hog", "", "signal 9 (Killed)"},
		{"hog", "--option sandbox false", "signal 9 (Killed)"},
	} {
		out, err := v.build(c.name, c.args)
		if err == nil || !strings.Contains(out, c.text) {
			t.Errorf("%s %s: %v\n%s", c.name, c.args, err, out)
		}
		v.nothingStays()
	}
	if out, err := v.try("awk '$1 == \"oom_kill\" && $2 >= 2' /sys/fs/cgroup/system.slice/nix-daemon.service/memory.events | grep ."); err != nil {
		t.Errorf("the kernel tells of nobody killed in the service: %s", out)
	}
	for _, args := range []string{"", "--check --option sandbox false"} {
		if out, err := v.build("goes-on", args); err != nil {
			t.Errorf("a builder that goes on forking: %v\n%s", err, out)
		}
		v.nothingStays()
	}
	// Others go on meanwhile.
	v.must("(nix-build --no-out-link builds.nix -A bomb; nix-build --no-out-link builds.nix -A hog) >/dev/null 2>&1 & nix-build --no-out-link builds.nix -A modest; wait")
	v.nothingStays()
	const want = "ActiveState=active\nNRestarts=0\nResult=success\nSubState=running"
	if got := v.must("systemctl show --property=ActiveState,SubState,Result,NRestarts " + service + " | sort"); got != want {
		t.Errorf("the service is:\n%s\nwant:\n%s", got, want)
	}
}

// hold has a client build something that goes on until "let" is run; bounded expects that it is within its limits.
const hold = `rm -f begun go
hold() {
  nix-build --no-out-link builds.nix -A $1 --option sandbox false >held.log 2>&1 &
  client=$!
  until [ -e begun ]; do kill -0 $client || { cat held.log; exit 1; }; sleep 0.1; done
}
bounded() {
  grep -qx 67108864 $unit/nix-build-*/memory.max
  grep -qx 1 $unit/nix-build-*/memory.oom.group
  grep -qx 40 $unit/nix-build-*/pids.max
}
active() { until systemctl is-active $service; do ! systemctl is-failed $service || exit 1; sleep 0.1; done; }
let() { touch go; wait $client || { cat held.log; exit 1; }; }
service=nix-daemon.service
unit=/sys/fs/cgroup/system.slice/$service
`

// restartInVirtual has systemd restart the service, and then the supervisor die, in the midst of a build.
func restartInVirtual(t *testing.T, v *virtual) {
	v.must(hold + `hold held
bounded
systemctl restart $service
systemctl is-active $service
bounded
nix-build --no-out-link builds.nix -A other
before=$(systemctl show --property=MainPID --value $service)
kill -KILL $before
until [ "$(systemctl show --property=MainPID --value $service)" != $before ]; do sleep 0.1; done
active
nix-build --no-out-link builds.nix -A other --check
bounded
let`)
	v.nothingStays()
}

// crashInVirtual kills the daemon, all of it, in the midst of a build, whose processes stay, within their limits, until the
// next build of the same user ends them.
func crashInVirtual(t *testing.T, v *virtual) {
	v.must(hold + `hold orphan
kill -KILL $(pgrep -x nix-daemon)
! wait $client
nix-instantiate builds.nix -A modest
active
bounded
nix-build --no-out-link builds.nix -A stays`)
	v.nothingStays()
	v.must("touch go; nix-build --no-out-link builds.nix -A orphan --option sandbox false")
	v.nothingStays()
}
