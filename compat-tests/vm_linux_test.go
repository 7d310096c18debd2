package compat

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// virtual is a machine of its own: a kernel that is not ours, with all its controllers of cgroups, and a power switch.
// Its files are those of a [system], which it has on a disk. Where the processor cannot help, it is emulated, and all
// is slower by an order of magnitude.
type virtual struct {
	t    *testing.T
	env  []string // of commands
	disk string
	// qemu is the machine while it has power. What its agent hears and says goes through qemu's standard streams.
	qemu    *exec.Cmd
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	console string // file of what the kernel says
}

// virtualLimit bounds whatever such a machine is asked for, emulated, on a machine that has much else to do.
const virtualLimit = 6 * time.Minute

// agentScript runs what it is told: a line with a number of bytes, then a script of that size. It answers with a line of
// status and size, and what was printed.
const agentScript = `#!/bin/bash
exec 3<>/dev/vport0p1
echo ready >&3
while read -r size <&3; do
  head -c "$size" <&3 >/run/agent.script
  timeout --signal=KILL 300 /bin/bash -e /run/agent.script >/run/agent.out 2>&1 3>&- </dev/null
  status=$?
  printf '%d %d\n' $status "$(stat -c %s /run/agent.out)" >&3
  cat /run/agent.out >&3
done
`

const agentUnit = `[Unit]
Description=Does what the tests say
[Service]
ExecStart=/usr/local/lib/agent
StandardError=journal+console
OOMPolicy=continue
[Install]
WantedBy=multi-user.target
`

// emulator finds the directory with qemu and a kernel, or skips the test where it cannot be had.
func emulator(t *testing.T) string {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the machine that is emulated is an amd64")
	}
	clients, err := clientsDir()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("./get-emulator")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "NIXDAEMON_CLIENTS="+clients)
	dir, err := cmd.Output()
	if err != nil {
		if os.Getenv("NIXDAEMON_REQUIRE_CLIENTS") == "1" {
			t.Fatalf("no emulator: %v: %s", err, stderr.String())
		}
		t.Skipf("no emulator: %v: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(dir))
}

// newVirtual makes a machine of the system's files, with the programs of more in /srv, and switches it on.
func newVirtual(t *testing.T, m *system, more map[string]string) *virtual {
	t.Helper()
	dir := emulator(t)
	m.write("/usr/local/lib/agent", agentScript, 0o755)
	m.write("/etc/systemd/system/agent.service", agentUnit, 0o644)
	for name, program := range more {
		m.install(program, "/srv/"+name)
	}
	v := &virtual{t: t, env: m.env, disk: newScratch(t).path("disk"), console: filepath.Join(t.TempDir(), "console")}
	root := filepath.Join(m.base, "root")
	for _, args := range [][]string{
		{"chroot", root, "systemctl", "enable", "--quiet", socket, service, "agent.service"},
		{"chroot", root, "systemctl", "mask", "--quiet", "getty@tty1.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"},
		{"mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", root, v.disk, "3G"},
	} {
		if out, err := m.outside(args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	v.on(dir)
	t.Cleanup(v.off)
	return v
}

// acceleration is what the processor does for virtual machines: all, or nothing. That there is /dev/kvm does not say so:
// it may be one for guests that know of it.
func acceleration() []string {
	emulated := []string{"-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"}
	flags, _ := os.ReadFile("/proc/cpuinfo")
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		kvm.Close()
	}
	if err == nil && (bytes.Contains(flags, []byte(" vmx ")) || bytes.Contains(flags, []byte(" svm "))) {
		return append([]string{"-accel", "kvm"}, emulated...) // if it works
	}
	return emulated
}

// on switches the machine on and waits for its agent.
func (v *virtual) on(emulator string) {
	v.t.Helper()
	// The kernel panics where a timer does not tick for the length of a few loops (no_timer_check): here that means only that
	// the emulator had to wait for a processor.
	args := append(acceleration(), "-machine", "q35", "-smp", "2", "-m", "1536", "-nodefaults", "-no-user-config", "-display", "none",
		"-kernel", filepath.Join(emulator, "kernel"), "-initrd", filepath.Join(emulator, "initrd"),
		"-append", "console=ttyS0 quiet no_timer_check systemd.show_status=false systemd.getty_auto=false systemd.default_timeout_start_sec=600 random.trust_cpu=1",
		"-serial", "file:"+v.console,
		"-drive", "file="+v.disk+",if=virtio,format=raw,cache=unsafe",
		"-device", "virtio-serial", "-chardev", "stdio,id=agent,signal=off", "-device", "virtserialport,nr=1,chardev=agent")
	v.qemu = exec.Command(filepath.Join(emulator, "qemu"), args...)
	var stderr lockedBuffer
	v.qemu.Stderr = &stderr
	v.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := v.qemu.StdinPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	stdout, err := v.qemu.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	v.stdin, v.stdout = stdin, bufio.NewReader(stdout)
	began := time.Now()
	if err := v.qemu.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.awaitAgent()
	v.t.Logf("up after %v", time.Since(began))
}

// off cuts the power.
func (v *virtual) off() {
	if v.qemu == nil {
		return
	}
	v.qemu.Process.Kill()
	v.stdin.Close()
	v.qemu.Wait()
	v.qemu = nil
}

// bounded does what may block, and switches the machine off when it takes too long.
func (v *virtual) bounded(f func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), virtualLimit)
	defer cancel()
	defer context.AfterFunc(ctx, func() { v.qemu.Process.Kill() })()
	return errors.Join(f(), context.Cause(ctx))
}

// awaitAgent waits until the machine has booted so far that it does what it is told.
func (v *virtual) awaitAgent() {
	v.t.Helper()
	err := v.bounded(func() error {
		for {
			line, err := v.stdout.ReadString('\n')
			if line == "ready\n" || err != nil {
				return err
			}
		}
	})
	if err != nil {
		v.lost(err)
	}
}

// lost ends the test with what the kernel said.
func (v *virtual) lost(err error) {
	v.t.Helper()
	console, _ := os.ReadFile(v.console)
	v.t.Fatalf("the machine is lost: %v\n%s", err, console)
}

// try runs a script of bash in the machine, which ends with the first command that fails, and gives what it printed.
func (v *virtual) try(script string) (string, error) {
	var b strings.Builder
	b.WriteString("export HOME=/root USER=root LANG=C.UTF-8 NIX_REMOTE=daemon\n")
	for _, kv := range v.env {
		name, value, _ := strings.Cut(kv, "=")
		fmt.Fprintf(&b, "export %s='%s'\n", name, value)
	}
	b.WriteString("cd /srv\n" + script)
	began := time.Now()
	var status int
	var out []byte
	err := v.bounded(func() error {
		if _, err := fmt.Fprintf(v.stdin, "%d\n%s", b.Len(), b.String()); err != nil {
			return err
		}
		line, err := v.stdout.ReadString('\n')
		if err != nil {
			return err
		}
		first, second, _ := strings.Cut(strings.TrimSpace(line), " ")
		size, err := strconv.ParseUint(second, 10, 24)
		if err != nil {
			return fmt.Errorf("the agent says %q", line)
		}
		if status, err = strconv.Atoi(first); err != nil {
			return err
		}
		out = make([]byte, size)
		_, err = io.ReadFull(v.stdout, out)
		return err
	})
	v.t.Logf("%.1f s: %.100q", time.Since(began).Seconds(), script)
	if err != nil {
		v.lost(err)
	}
	if status != 0 {
		err = fmt.Errorf("exit status %d", status)
	}
	return strings.TrimSpace(string(out)), err
}

// must is try where nothing may go wrong.
func (v *virtual) must(script string) string {
	v.t.Helper()
	out, err := v.try(script)
	if err != nil {
		journal, _ := v.try("journalctl --no-pager --output=short-monotonic --unit=nix-daemon.service | tail -n 60")
		v.t.Fatalf("%s\n%v: %s\njournal:\n%s", script, err, out, journal)
	}
	return out
}
