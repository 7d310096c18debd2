package compat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// initSystem is what a machine has as its process 1.
type initSystem struct {
	machine string // as get-machine calls it
	command string
	comm    string // the process' own name
	reboot  []string
	// isUp asks, in the machine, whether the start has come to its end.
	isUp []string
	// up are the answers that say so; none if any will do.
	up []string
}

func systemd() initSystem {
	return initSystem{
		command: "/sbin/init systemd.show_status=false", comm: "systemd", reboot: []string{"systemctl", "reboot"},
		isUp: []string{"systemctl", "is-system-running"}, up: []string{"running", "degraded"},
	}
}

// system is a small Debian system with an init system as its process 1, in namespaces of its own. Its files lie over those
// that get-machine has made, which stay as they are; they outlive the machine's boots, as a disk does. Nothing of it
// is seen from outside.
type system struct {
	t    *testing.T
	init initSystem
	base string // of its files, in the holder's mount namespace
	// holder keeps the mounts while the machine is down.
	holder *exec.Cmd
	// boot is the process that waits for process 1, which is up; nil while the machine is down.
	boot    *exec.Cmd
	pid     int
	console *lockedBuffer
	boots   int
	env     []string // of commands, in addition
}

// systemLimit bounds whatever a machine does; it only keeps a hang from lasting for ever.
const systemLimit = 3 * time.Minute

// slow is what a test tells of.
const slow = 5 * time.Second

// newSystem makes a machine with systemd, down, or skips the test where there can be none.
func newSystem(t *testing.T) *system {
	t.Helper()
	return newSystemOf(t, systemd())
}

// newSystemOf makes one with another init system.
func newSystemOf(t *testing.T, init initSystem) *system {
	t.Helper()
	requireClients(t)
	if os.Getuid() != 0 {
		t.Skip("only root can boot a machine in namespaces")
	}
	cmd := exec.Command("./get-machine", init.machine)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	clients, err := clientsDir()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "NIXDAEMON_CLIENTS="+clients)
	root, err := cmd.Output()
	if err != nil {
		if os.Getenv("NIXDAEMON_REQUIRE_CLIENTS") == "1" {
			t.Fatalf("no machine: %v: %s", err, stderr.String())
		}
		t.Skipf("no machine: %v: %s", err, stderr.String())
	}
	m := &system{t: t, init: init, base: newScratch(t).path("machine")}
	if err := os.Mkdir(m.base, 0o755); err != nil {
		t.Fatal(err)
	}
	m.hold(strings.TrimSpace(string(root)), clients)
	return m
}

// holderScript mounts the machine's files. The upper layer is in memory, which takes what other overlays do not; the
// store is no overlay, as on few machines it is.
const holderScript = `
mount -t tmpfs -o mode=755 disk "$1"
cd "$1"
mkdir upper work root nix cgroup
mount -t overlay -o "lowerdir=$2,upperdir=upper,workdir=work" machine root
mkdir -p root/nix "root$3"
mount --bind nix root/nix
mount --bind "$3" "root$3"
mount -o remount,bind,ro "root$3"
mount -t cgroup2 cgroup2 cgroup
echo up
read wait
`

// hold mounts the machine's files, clients included, in a namespace of their own.
func (m *system) hold(root, clients string) {
	m.t.Helper()
	m.holder = exec.Command("unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", holderScript, "sh", m.base, root, clients)
	var stderr lockedBuffer
	m.holder.Stderr = &stderr
	stdin, err := m.holder.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	stdout, err := m.holder.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.holder.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		m.down()
		stdin.Close()
		m.holder.Wait()
	})
	if _, err := stdout.Read(make([]byte, 3)); err != nil {
		m.t.Skipf("this system lets root mount no overlay or no cgroups: %s", stderr.String())
	}
}

// path is where a file of the machine is for this process.
func (m *system) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(m.holder.Process.Pid), "root", m.base, "root", name)
}

// write makes a file of the machine.
func (m *system) write(name, content string, mode fs.FileMode) {
	m.t.Helper()
	file := m.path(name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), mode), os.Chmod(file, mode)); err != nil {
		m.t.Fatal(err)
	}
}

// install puts a program of this system into the machine, under a new file as a package manager does.
func (m *system) install(program, name string) {
	m.t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		m.t.Fatal(err)
	}
	m.write(name+".new", string(data), 0o755)
	if err := os.Rename(m.path(name+".new"), m.path(name)); err != nil {
		m.t.Fatal(err)
	}
}

// bootScript makes process 1 in what an init system expects of a machine: a cgroup that is the root of all, fresh /proc, /sys,
// /dev and /run, mounts that are shared, and another boot id than before. What it runs in has been unshared but for the cgroups, whose root shall be the new one.
const bootScript = `
cd "$1"
mkdir "cgroup/$2"
echo $$ > "cgroup/$2/cgroup.procs"
INIT=$3 exec unshare --cgroup --pid --fork --kill-child --mount --uts --ipc --net --propagation private /bin/sh -ec '
cd root
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
for d in null zero full random urandom tty; do touch dev/$d; mount --bind /dev/$d dev/$d; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=755 run run
cat /proc/sys/kernel/random/uuid > run/boot-id
mount --bind run/boot-id proc/sys/kernel/random/boot_id
hostname machine
mkdir -p run/outside
pivot_root . run/outside
exec chroot . /bin/sh -ec "umount -l /run/outside; rmdir /run/outside; mount --make-rshared /; exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin $INIT" < /dev/null
'
`

// up boots the machine and waits until its init system has done what it does at start.
func (m *system) up() {
	m.t.Helper()
	m.boots++
	m.console = &lockedBuffer{}
	m.boot = m.outside("/bin/sh", "-ec", bootScript, "sh", m.base, m.group(), m.init.command)
	m.boot.Stdout, m.boot.Stderr = m.console, m.console
	if err := m.boot.Start(); err != nil {
		m.t.Fatal(err)
	}
	err := poll(systemLimit, func() error {
		if m.pid = m.processOne(); m.pid == 0 {
			return errors.New("no process 1")
		}
		state, err := m.try(m.init.isUp...)
		if slices.Contains(m.init.up, state) || len(m.init.up) == 0 && err == nil {
			return nil
		}
		return fmt.Errorf("%s is %q: %w", m.init.comm, state, err)
	})
	if err != nil {
		m.t.Fatalf("the machine does not come up: %v\n%s", err, m.console)
	}
}

// group is the cgroup of this boot, beneath that in which the tests run.
func (m *system) group() string {
	text, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		if own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join(own, fmt.Sprintf("nixdaemon-machine-%d-%d", m.holder.Process.Pid, m.boots))
		}
	}
	return fmt.Sprintf("nixdaemon-machine-%d-%d", m.holder.Process.Pid, m.boots)
}

// processOne is the number of the machine's process 1, 0 before it is the init system.
func (m *system) processOne() int {
	for _, pid := range childrenOf(m.boot.Process.Pid) {
		if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(comm) == m.init.comm+"\n" {
			return pid
		}
	}
	return 0
}

// outside is a command in the holder's mount namespace.
func (m *system) outside(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--mount=" + fmt.Sprintf("/proc/%d/ns/mnt", m.holder.Process.Pid), "--"}, args...)...)
}

// command is one in the machine, as root, of its system: not of any service.
func (m *system) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), systemLimit)
	m.t.Cleanup(cancel)
	enter := []string{
		"--target", strconv.Itoa(m.pid), "--all", "--root", "--wd", "--", "env", "-i",
		"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LANG=C.UTF-8", "NIX_REMOTE=daemon",
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(append(enter, m.env...), args...)...)
	cmd.WaitDelay = systemLimit / 10 // for what it leaves behind to close its output
	return cmd
}

// try runs a command in the machine and gives what it printed on standard output.
func (m *system) try(args ...string) (string, error) {
	cmd := m.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	began := time.Now()
	out, err := cmd.Output()
	if took := time.Since(began); took > slow {
		m.t.Logf("%s took %v", strings.Join(args, " "), took)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

// must is try where nothing may go wrong.
func (m *system) must(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.fail(err)
	}
	return out
}

// fail ends the test with the machine's journal.
func (m *system) fail(err error) {
	m.t.Helper()
	journal, _ := m.try("/bin/sh", "-c", "journalctl --no-pager --output=short-monotonic --unit=nix-daemon.service --unit=nix-daemon.socket | grep -Ev '(Sent|Got) message' | tail -n 120")
	m.t.Fatalf("%v\njournal:\n%s", err, journal)
}

// property is one of a unit's, as "systemctl show" tells it.
func (m *system) property(unit, name string) string {
	m.t.Helper()
	return m.must("systemctl", "show", "--property="+name, "--value", unit)
}

// await waits until a condition holds.
func (m *system) await(f func() error) {
	m.t.Helper()
	if err := poll(systemLimit, f); err != nil {
		m.fail(err)
	}
}

// awaitProperty waits until a unit's property is what is wanted.
func (m *system) awaitProperty(unit, name, want string) {
	m.t.Helper()
	m.await(func() error {
		if got, err := m.try("systemctl", "show", "--property="+name, "--value", unit); got != want {
			return errors.Join(fmt.Errorf("%s of %s is %q, want %q", name, unit, got, want), err)
		}
		return nil
	})
}

// awaitJournal waits until the unit's journal has so many lines that contain a text.
func (m *system) awaitJournal(unit, text string, count int) {
	m.t.Helper()
	m.await(func() error {
		if n := m.journal(unit, text); n < count {
			return fmt.Errorf("%d lines with %q in the journal, want %d", n, text, count)
		}
		return nil
	})
}

// journal counts lines with a text in what a unit, or systemd of it, has logged since the machine was made.
func (m *system) journal(unit, text string) int {
	out, _ := m.try("journalctl", "--no-pager", "--output=cat", "--unit="+unit)
	return strings.Count(out, text)
}

// reboot has the machine end as its init system does, and boots it again.
func (m *system) reboot() {
	m.t.Helper()
	m.try(m.init.reboot...) // which may take the command along
	gone := make(chan struct{})
	go func() {
		m.boot.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(systemLimit):
		m.fail(errors.New("the machine does not go down"))
	}
	m.boot = nil
	m.sweep()
	m.up()
}

// down cuts the power.
func (m *system) down() {
	if m.boot == nil {
		return
	}
	if pid := m.processOne(); pid != 0 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	m.boot.Process.Kill()
	m.boot.Wait()
	m.boot = nil
	m.sweep()
}

// sweep removes the cgroups of the last boot, whose processes have ended or are about to.
func (m *system) sweep() {
	err := poll(systemLimit, func() error {
		return m.outside("/bin/sh", "-ec", `[ ! -d "$1" ] || find "$1" -depth -type d -exec rmdir {} +`,
			"sh", filepath.Join(m.base, "cgroup", m.group())).Run()
	})
	if err != nil {
		m.t.Errorf("cgroups of the machine stay: %v", err)
	}
}
