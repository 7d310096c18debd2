package sandbox_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"nixdaemon/sandbox"
)

// TestNetworkIsUsedAgain: one in which nobody has sent anything is, but none in which somebody has, whether or not there was
// a way.
func TestNetworkIsUsedAgain(t *testing.T) {
	if err := exec.Command("bash", "-c", "echo x > /dev/udp/127.0.0.1/9").Run(); err != nil {
		t.Skipf("needs a shell that can send: %v", err)
	}
	everybody(t, func(t *testing.T, l *sandbox.Launcher, u *sandbox.User) {
		play := func(script string) string {
			t.Helper()
			out, res := run(t, l, world(t, l, u, "readlink /proc/self/ns/net; "+script))
			if res.ExitCode != 0 {
				t.Fatalf("%s: %q, %+v", script, out, res)
			}
			name, _, _ := strings.Cut(out, "\n")
			return name
		}
		first := play("true")
		if again := play("cat /proc/net/snmp >/dev/null"); again != first {
			t.Errorf("%s after %s, in which nobody has sent anything", again, first)
		}
		for _, to := range []string{"udp/127.0.0.1/9", "udp/192.0.2.1/9", "tcp/192.0.2.1/9"} {
			if !strings.Contains(to, "127.0.0.1") && os.Geteuid() != 0 {
				continue // only root can look
			}
			before := play("bash -c 'echo x > /dev/" + to + "' 2>/dev/null; true")
			if after := play("true"); after == before {
				t.Errorf("%s is used again after something was sent to %s", after, to)
			}
		}
	})
}
