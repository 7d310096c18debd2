package compat

import (
	"encoding/binary"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSightOfStdio has a conversation over each protocol on standard input and looks for its line in the log.
func TestSightOfStdio(t *testing.T) {
	requireClients(t)
	for name, c := range map[string]struct {
		program string
		args    []string
		say     []uint64
		answers int // how many numbers to read before the next is said
		ask     []uint64
		reply   int
	}{
		// Magic number, version 1.21; no affinity, no reserve; then QueryAllValidPaths.
		"worker": {"nix-daemon", []string{"--stdio", "-v"}, []uint64{0x6e697863, 1<<8 | 21, 0, 0}, 3, []uint64{23}, 2},
		// Magic number, version 2.7; then QueryValidPaths of nothing.
		"serve": {"nix-store", []string{"--serve", "-v"}, []uint64{0x390c9deb, 2<<8 | 7}, 2, []uint64{1, 0, 0, 0}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScratch(t)
			own := filepath.Join(s.path("tmp"), c.program)
			if out, err := exec.Command("cp", shared.daemon.path, own).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			cmd := exec.Command(own, c.args...)
			cmd.Env = s.daemonEnv(shared.daemon)
			var log strings.Builder
			cmd.Stderr = &log
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			talk := func(say []uint64, answers int) {
				t.Helper()
				if err := binary.Write(in, binary.LittleEndian, say); err != nil {
					t.Fatal(err)
				}
				if err := binary.Read(out, binary.LittleEndian, make([]uint64, answers)); err != nil {
					t.Fatalf("%v\n%s", err, log.String())
				}
			}
			talk(c.say, c.answers)
			talk(c.ask, c.reply)
			in.Close()
			if rest, err := io.ReadAll(out); err != nil || len(rest) != 0 {
				t.Errorf("it went on with %q, %v", rest, err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v\n%s", err, log.String())
			}
			if !strings.Contains(log.String(), "connection of root (pid ") || !strings.Contains(log.String(), ": 1 requests") {
				t.Errorf("the log says\n%s", log.String())
			}
		})
	}
}
