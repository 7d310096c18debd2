// Package sandboxtest helps tests that run builders: it skips, with the reason, what the machine cannot do,
// and hands out a user id for builders that nothing else on the machine uses.
package sandboxtest

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync/atomic"
	"testing"

	"nixdaemon/sandbox"
)

// NeedRoot skips the test unless it runs as root.
func NeedRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
}

// NeedPrograms skips the test unless all programs are found in PATH.
func NeedPrograms(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			tb.Skipf("needs the program %s", name)
		}
	}
}

// firstUID begins a range far from those of real accounts, of upstream's installers and of its automatic allocation.
const firstUID = 1_900_000_000

var users atomic.Uint32

// BuildUser returns a user for a builder, different for each call and each test process. It has no account.
// It skips the test unless it runs as root.
func BuildUser(tb testing.TB) *sandbox.User {
	tb.Helper()
	NeedRoot(tb)
	uid := firstUID + uint32(os.Getpid()%100_000)*1000 + users.Add(1)%1000
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		tb.Skipf("needs uid %d free; it belongs to %s", uid, u.Username)
	}
	return &sandbox.User{UID: uid, GID: uid}
}

// DirFor returns a directory that the user, who may be nil, owns and can reach.
func DirFor(tb testing.TB, u *sandbox.User) string {
	tb.Helper()
	dir := tb.TempDir()
	if u == nil {
		return dir
	}
	// The parent made by the testing package is for its own user alone.
	for _, d := range []string{dir + "/..", dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.Chown(dir, int(u.UID), int(u.GID)); err != nil {
		tb.Fatal(err)
	}
	return dir
}
