package build

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// asideEnv is set in a process that runs one long test, or several, for another one.
const asideEnv = "NIXDAEMON_TEST_ASIDE"

// aside has a long test run in a process of its own, beside others: build users are named after processes, and what a
// test counts in its own process is not disturbed. It tells whether this is that process, and waits for it if not.
func aside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(asideEnv) != "" {
		return true
	}
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=15m"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), asideEnv+"=1")
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case err == nil && strings.Contains(text, "\n--- SKIP: "+t.Name()+" "):
		t.Skipf("%s", text)
	case err != nil || !strings.Contains(text, "\n--- PASS: "+t.Name()+" "):
		t.Errorf("%v\n%s", err, text)
	case testing.Verbose():
		t.Logf("%s", text)
	}
	return false
}

// rounds is how often something is tried that goes wrong only now and then.
func rounds(n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
}
