//go:build linux && amd64

package seccomp

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// filtered runs do on a thread of its own that has the filter and ends afterwards.
func filtered(t *testing.T, do func() error) {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = Install()
		}
		if err == nil {
			err = do()
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// attempts are the ways that the program in testdata tries, with their errors under the filter.
var attempts = map[string]syscall.Errno{
	"chmod": unix.EPERM, "fchmod": unix.EPERM, "fchmodat": unix.EPERM, "fchmodat2": unix.EPERM,
	"open": unix.EPERM, "openat": unix.EPERM, "openat O_TMPFILE": unix.EPERM, "creat": unix.EPERM,
	"mknod": unix.EPERM, "mknodat": unix.EPERM, "openat2": unix.ENOSYS, "io_uring_setup": unix.ENOSYS,
	"setxattr": unix.ENOTSUP, "fsetxattr": unix.ENOTSUP, "setxattrat": unix.ENOTSUP, "getxattr": unix.ENOTSUP,
	"listxattr": unix.ENOTSUP, "llistxattr": unix.ENOTSUP, "flistxattr": unix.ENOTSUP, "listxattrat": unix.ENOTSUP,
	"chmod plain": 0, "open plain": 0, "mkdir": 0,
}

func TestAttempts(t *testing.T) {
	for _, goarch := range []string{"amd64", "386"} {
		t.Run(goarch, func(t *testing.T) {
			program := buildAttempts(t, goarch)
			plain := t.TempDir()
			out, err := run(plain, program)
			if errors.Is(err, unix.ENOEXEC) {
				t.Skip("this kernel runs no 32-bit programs")
			}
			if err != nil {
				t.Fatal(err)
			}
			checkUnfiltered(t, plain, out)

			dir := t.TempDir()
			filtered(t, func() error {
				out, err = run(dir, program)
				return err
			})
			var want strings.Builder
			for line := range strings.Lines(out) {
				name, _, _ := strings.Cut(line, ":")
				fmt.Fprintf(&want, "%s: %s\n", name, outcome(attempts[name]))
			}
			if diff := cmp.Diff(want.String(), out); diff != "" {
				t.Errorf("under the filter (-want +got):\n%s", diff)
			}
			if n := strings.Count(out, "\n"); n != len(attempts) {
				t.Errorf("got %d attempts, want %d", n, len(attempts))
			}
			if found := setIDFiles(t, dir); len(found) > 0 {
				t.Errorf("files with set-id bits: %v", found)
			}
		})
	}
}

func outcome(errno syscall.Errno) string {
	if errno == 0 {
		return "ok"
	}
	return fmt.Sprint(int(errno))
}

// checkUnfiltered shows that the attempts are real ones: without the filter they make set-id files. What the kernel
// or the file system lacks may fail.
func checkUnfiltered(t *testing.T, dir, out string) {
	t.Helper()
	for _, name := range []string{"chmod", "fchmod", "fchmodat", "open", "openat", "creat", "mknod", "mknodat"} {
		if !strings.Contains(out, name+": ok\n") {
			t.Errorf("%s fails without the filter too:\n%s", name, out)
		}
	}
	for _, name := range []string{"open", "openat", "creat", "mknod", "mknodat"} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) == 0 {
			t.Errorf("%s without the filter: got %v, %v", name, info, err)
		}
	}
}

func setIDFiles(t *testing.T, dir string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			found = append(found, e.Name())
		}
	}
	return found
}

func buildAttempts(t *testing.T, goarch string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "attempts")
	cmd := exec.Command("go", "build", "-o", program, "./testdata/attempts")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+goarch, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the attempts: %v\n%s", err, out)
	}
	return program
}

func run(dir string, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(out), err
}

// What builds do all day goes on under the filter, attributes and modes included.
func TestOrdinaryPrograms(t *testing.T) {
	for _, program := range []string{"sh", "cp", "ls", "tar", "install", "mkfifo"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s on this machine", program)
		}
	}
	const script = `set -e
mkdir a
echo hello >a/file
ln -s file a/link
ln a/file a/hard
mkfifo a/pipe
chmod 0751 a
chmod 1777 a
install -m 0555 a/file installed
cp -a a b
cp -r --preserve=mode,timestamps,links a c
mv b/file b/moved
ls -l a >listing
tar -cf a.tar a
mkdir d
tar -C d -xpf a.tar
cat d/a/link
stat -c '%a %n' a b d/a installed
`
	var out string
	dir := t.TempDir()
	filtered(t, func() (err error) {
		out, err = run(dir, "sh", "-c", script)
		return err
	})
	want := "hello\n1777 a\n1777 b\n1777 d/a\n555 installed\n"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
