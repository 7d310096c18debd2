package compat

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestQuickVerify has clients verify through a daemon that looks at sizes and
// types alone: a file that was cut short is found, told as upstream tells it,
// and repaired; one that is changed behind everybody's back is not, until the
// setting is gone.
func TestQuickVerify(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		s.configure(t, "quick-verify = true\n")
		d := startDaemon(t, s, shared.daemon, daemonOptions{})
		out := s.must(t, c, nil, "nix-build", build(shell("checked", "mkdir $out; echo contents > $out/file"))...)
		change := func(text string) {
			t.Helper()
			file := out + "/file"
			for _, err := range []error{os.Chmod(file, 0o644), os.WriteFile(file, []byte(text), 0), os.Chmod(file, 0o444), os.Chtimes(file, time.Time{}, time.Unix(1, 0))} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		verify := func(found bool, args ...string) {
			t.Helper()
			said, err := s.run(t, c, nil, "nix-store", append([]string{"--verify", "--check-contents"}, args...)...)
			if (err != nil) != found {
				t.Errorf("%q: found %t, want %t: %s, %v", args, err != nil, found, said, err)
			}
			if found && !strings.Contains(err.Error(), "path '"+out+"' was modified! expected hash") {
				t.Errorf("told %v", err)
			}
		}
		verify(false)
		change("cut")
		verify(true)
		verify(false, "--repair")
		verify(false)
		change("CONTENTS\n")
		verify(false)
		mustStop(t, d)

		s.configure(t, "")
		d = startDaemon(t, s, shared.daemon, daemonOptions{})
		verify(true)
		verify(false, "--repair")
		mustStop(t, d)
		s.verify(t, shared.clients[referenceVersion])
	})
}
