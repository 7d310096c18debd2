package sandbox

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/darwinexec"
	"nixdaemon/sandbox/darwinprofile"
)

// TestMain lets the test's program be the step before the builder, as the daemon's is.
func TestMain(m *testing.M) {
	if darwinexec.Invoked(os.Args) {
		os.Exit(darwinexec.Main(os.Args))
	}
	os.Exit(m.Run())
}

// macBuild is a script that runs as builds do: under a profile, with the system's shell.
type macBuild struct {
	*testing.T
	launcher *Launcher
	spec     Spec
}

func newMacBuild(t *testing.T, script string) *macBuild {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, store := filepath.Join(root, "build"), filepath.Join(root, "store")
	for _, name := range []string{dir, store, filepath.Join(store, "in")} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	launcher, err := NewLauncher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { launcher.Close() })
	profile := &darwinprofile.Options{Isolated: true, BuildDir: dir, TempDir: filepath.Join(root, "tmp"), StoreDir: store,
		Outputs: []string{filepath.Join(store, "out")}, Inputs: []darwinprofile.Path{{Name: filepath.Join(store, "in"), Tree: true}}}
	for _, name := range []string{"/bin/sh", "/bin/bash"} {
		profile.HostPaths = append(profile.HostPaths, darwinprofile.Path{Name: name})
	}
	for _, name := range []string{"/System/Library/Frameworks", "/System/Library/PrivateFrameworks", "/usr/lib", "/usr/bin", "/bin"} {
		profile.HostPaths = append(profile.HostPaths, darwinprofile.Path{Name: name, Tree: true})
	}
	return &macBuild{t, launcher, Spec{Path: "/bin/bash", Args: []string{"builder", "-c", script}, Dir: dir,
		Env: []string{"PATH=/usr/bin:/bin", "out=" + store + "/out", "store=" + store}, Darwin: &DarwinSandbox{Profile: profile}}}
}

func (b *macBuild) run() (string, int) {
	b.Helper()
	p, err := b.launcher.Start(context.Background(), b.spec)
	if err != nil {
		b.Fatal(err)
	}
	out, readErr := io.ReadAll(p.Output())
	killErr := p.Kill()
	res, err := p.Wait()
	if readErr != nil || killErr != nil || err != nil {
		b.Error(readErr, killErr, err)
	}
	return string(out), res.ExitCode
}

func (b *macBuild) wants(want string) {
	b.Helper()
	if out, code := b.run(); out != want || code != 0 {
		b.Errorf("status %d, output %q, want %q", code, out, want)
	}
}

func TestMacBuilderWorks(t *testing.T) {
	// DYLD variables would arrive too, but the system's shell is one of the programs that they are kept from.
	b := newMacBuild(t, `echo $0 $GODEBUG; echo hello > $out; cat $out; pwd > here; rm $out`)
	b.spec.Env = append(b.spec.Env, "GODEBUG=gctrace=1")
	b.wants("builder gctrace=1\nhello\n")
	if _, err := os.Stat(b.spec.profileFile()); !os.IsNotExist(err) {
		t.Errorf("the profile is left: %v", err)
	}
}

func TestMacBuilderIsConfined(t *testing.T) {
	for name, script := range map[string]string{
		"another store object": `cat $store/other`,
		"write to the store":   `echo x > $store/new`,
		"users":                `cat /private/etc/passwd`,
		"home":                 `ls /Users`,
		"set-user-id file":     `touch $out && chmod u+s $out`,
		"set-group-id in tmp":  `touch f && chmod g+s f`,
		"network":              `exec 3<>/dev/tcp/127.0.0.1/1 2>&1 | grep -q refused`,
	} {
		t.Run(name, func(t *testing.T) {
			b := newMacBuild(t, "("+script+") 2>/dev/null && echo done; true")
			if err := os.WriteFile(filepath.Join(filepath.Dir(b.spec.Dir), "store", "other"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			b.wants("")
		})
	}
}

func TestMacSetIDWithoutIsolation(t *testing.T) {
	b := newMacBuild(t, "cat /private/etc/hosts > /dev/null && echo seen; touch f; chmod u+s f 2>/dev/null && echo set; true")
	b.spec.Darwin.Profile.Isolated = false
	b.wants("seen\n")
}

func TestMacMissingBuilder(t *testing.T) {
	b := newMacBuild(t, "")
	b.spec.Path = b.spec.Dir + "/nothing"
	out, code := b.run()
	if !strings.Contains(out, "executing '") || !strings.HasSuffix(out, "No such file or directory") || code != 1 {
		t.Errorf("status %d, output %q", code, out)
	}
}

func TestMacArchitecture(t *testing.T) {
	for arch, want := range map[darwinexec.Architecture]string{darwinexec.ARM64: "arm64\n", darwinexec.X8664: "x86_64\n"} {
		if err := exec.Command("/usr/bin/arch", "-"+string(arch), "/usr/bin/true").Run(); err != nil {
			t.Logf("this machine does not run %s: %v", arch, err)
			continue
		}
		b := newMacBuild(t, "uname -m")
		b.spec.Darwin.Architecture = arch
		b.wants(want)
	}
}

// TestMacBuildUser runs a builder as the user nobody, and looks for its System V objects afterwards.
func TestMacBuildUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const nobody = 4294967294
	b := newMacBuild(t, "id -ru; id -u; ipcmk() { /usr/bin/perl -e 'shmget(0, 4096, 0600|01000); msgget(0, 0600|01000); semget(0, 1, 0600|01000)'; }; ipcmk")
	b.spec.User = &User{UID: nobody, GID: nobody}
	if err := os.Chown(b.spec.Dir, -2, -2); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(b.spec.Dir), filepath.Dir(filepath.Dir(b.spec.Dir))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.wants(strings.Repeat(strconv.Itoa(nobody)+"\n", 2))
	for _, kind := range ipcKinds {
		if left := ipcIDs(nobody, kind.next); len(left) != 0 {
			t.Errorf("%s: %v is left", kind.sysctl, left)
		}
	}
}

// TestMacIPCSizes: the kernel answers with another error than the end of the list if a size is not its own.
func TestMacIPCSizes(t *testing.T) {
	out, err := exec.Command("/usr/bin/perl", "-e", "print shmget(0, 4096, 0600|01000)").Output()
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.ParseUint(string(out), 10, 32)
	if err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	// Only this one: others of the same user are somebody's.
	defer unix.Syscall(unix.SYS_SHMCTL, uintptr(id), unix.IPC_RMID, 0)
	if found := ipcIDs(uint32(os.Getuid()), ipcKinds[0].next); !slices.Contains(found, uint32(id)) {
		t.Errorf("segment %d is not among %v", id, found)
	}
}
