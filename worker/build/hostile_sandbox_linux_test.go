package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox/sandboxtest"
	"nixdaemon/worker/settings"
)

// hostile shows builders the hostile program, and filters their system calls as daemons do.
func (w *world) hostile() {
	w.Helper()
	w.isolate()
	exe, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	w.set(func(s *settings.Settings) {
		s.FilterSyscalls = true
		s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: "/hostile", Source: exe})
	})
}

// tree adds a directory with a file in it to the store.
func (w *world) tree(name string) storepath.Path {
	w.Helper()
	return w.mustBuild(w.drv(name, "/bin/mkdir $out && echo precious > $out/file"))
}

// state is all there is to know of a tree.
func (w *world) state(dirs ...string) map[string]string {
	w.Helper()
	all := make(map[string]string)
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			text := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
			if info.Mode().IsRegular() {
				b, err := os.ReadFile(name)
				if err != nil {
					return err
				}
				text += fmt.Sprintf(" %d links, %v, %x", st.Nlink, info.ModTime(), sha256.Sum256(b))
			}
			all[name] = text
			return nil
		})
		if err != nil {
			w.Fatal(err)
		}
	}
	return all
}

// handleOf is the handle by which whoever may can open a file without knowing its path.
func handleOf(name string) string {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, name, 0)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d:%s", handle.Type(), hex.EncodeToString(handle.Bytes()))
}

// sharedMemory makes a segment that everybody may use, and gives its key.
func sharedMemory(t *testing.T) string {
	t.Helper()
	key := 0x4e000000 + os.Getpid()
	id, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	return fmt.Sprint(key)
}

// abstractSockets listens where everybody in the network namespace could connect, and gives the name.
func abstractSockets(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("hostile-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	l, err := net.Listen("unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d, err := net.ListenPacket("unixgram", "@"+name+"-datagrams")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return name
}

// scopesSockets tells whether the kernel can keep builders in the daemon's network from its abstract sockets.
func scopesSockets() bool {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return errno == 0 && version >= 6
}

// TestHostileEscapes has builders try to reach what is outside, with and without the network, at first as they are and
// then from a user namespace of their own. Abstract sockets: CVE-2025-46416, GHSA-g948-229j-48j3 and GHSA-g3g9-5vj6-r3gj.
func TestHostileEscapes(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		w.hostile()
		input, other := w.tree("input"), w.tree("other")
		victims := w.root + "/victims"
		if err := os.Mkdir(victims, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(victims+"/file", []byte("precious"), 0o666); err != nil {
			t.Fatal(err)
		}
		device, err := os.Stat("/dev/full")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if os.Geteuid() == 0 {
				os.Chmod("/dev/full", device.Mode().Perm())
			}
		})
		dirs := []string{victims, w.store.RealPath(input), w.store.RealPath(other), "/dev/full"}
		before := w.state(dirs...)
		facts := map[string]string{"VICTIM": victims + "/file", "INPUT": w.print(input), "OTHER": w.print(other), "STATE": w.root + "/var", "DAEMON": itoa(os.Getpid()),
			"DRV": w.root + "/store/x.drv", "HANDLE": handleOf(victims + "/file"), "SHM": sharedMemory(t), "ABSTRACT": abstractSockets(t)}
		for name, change := range map[string]func(*derivation.Derivation){"alone": func(*derivation.Derivation) {}, "network": fixed(storepath.MethodFlat, "done\n")} {
			for _, role := range []string{"attack", "attack from a namespace"} {
				w.log.mu.Lock()
				w.log.results = nil
				w.log.mu.Unlock()
				script := "export " + hostileEnv + "='" + role + "'; /hostile; unset " + hostileEnv + "; echo done > $out"
				w.mustBuild(w.drv(strings.ReplaceAll(role, " ", "-")+"-"+name, script, needs(input), func(d *derivation.Derivation) {
					for key, value := range facts {
						d.Env[key] = value
					}
				}, change))
				lines := w.log.lines()
				if len(lines) == 0 {
					t.Errorf("%s, %s: nothing was tried", name, role)
				}
				for _, line := range lines {
					switch {
					case strings.HasPrefix(line, "tried: "):
					case name == "network" && strings.Contains(line, "abstract socket") && !scopesSockets():
						t.Log("the kernel does not scope abstract sockets: " + line)
					default:
						t.Errorf("%s, %s: %s", name, role, line)
					}
				}
				if role == "attack" && len(lines) < 60 {
					t.Errorf("%s: only %d attempts", name, len(lines))
				}
			}
			if diff := cmp.Diff(before, w.state(dirs...)); diff != "" {
				t.Errorf("%s: the host is changed (-before +after)\n%s", name, diff)
			}
		}
	})
}

// TestHostileUnprivileged runs the tests of hostile builders as an ordinary user, the longest of them briefly.
func TestHostileUnprivileged(t *testing.T) {
	t.Parallel()
	u := sandboxtest.BuildUser(t)
	dir := sandboxtest.DirFor(t, u)
	exe := dir + "/test"
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.short", "-test.timeout=15m", "-test.run", "^(TestHostile(Escapes|Accomplice|Descriptor|BuildDir)|TestIsolatedHostileOutputs)")
	cmd.Dir, cmd.Env = dir, []string{asideEnv + "=1", "PATH=/usr/bin:/bin", "TMPDIR=" + dir, "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.UID, Gid: u.GID}}
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "needs namespaces") {
		t.Skipf("needs namespaces for ordinary users")
	}
	if err != nil || !strings.Contains(string(out), "PASS: TestHostileEscapes/own_user") {
		t.Errorf("unprivileged: %v\n%s", err, out)
	}
}
