package compat

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// initialise has the daemon make the database. Upstream's processes that find
// none at the same moment take each other's unfinished one for corrupt.
func (s scratch) initialise(t testing.TB, c client) {
	t.Helper()
	s.must(t, c, nil, "nix-store", "--verify")
}

// directEnv has a client open the store by itself.
var directEnv = []string{"NIX_REMOTE="}

// TestDirectBeside has clients of each version work on the store directly
// while others of the same version go through the daemon: each sees at once
// what the other did, in both directions.
func TestDirectBeside(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		d := startDaemon(t, s, shared.daemon, daemonOptions{})
		ways := [][]string{directEnv, nil} // who makes, who looks
		for turn := range 6 {
			maker, other := ways[turn%2], ways[(turn+1)%2]
			out := s.must(t, c, maker, "nix-build", build(shell(fmt.Sprintf("turn-%d", turn), "echo > $out"))...)
			if got := s.must(t, c, other, "nix-store", "--query", "--deriver", out); !strings.HasSuffix(got, ".drv") {
				t.Errorf("turn %d: deriver %q", turn, got)
			}
			hash := s.must(t, c, maker, "nix-store", "--query", "--hash", out)
			if got := s.must(t, c, other, "nix-store", "--query", "--hash", out); got != hash {
				t.Errorf("turn %d: hash %q, the other says %q", turn, got, hash)
			}
			if turn < 4 {
				s.must(t, c, other, "nix-store", "--delete", out)
				if said, err := s.run(t, c, maker, "nix-store", "--query", "--hash", out); err == nil {
					t.Errorf("turn %d: still there after the other deleted it: %s", turn, said)
				}
			}
		}
		for _, env := range ways {
			s.must(t, c, env, "nix-store", "--verify", "--check-contents")
		}
		mustStop(t, d)
		s.verify(t, shared.clients[referenceVersion])
	})
}

// TestWritersTogether has writers of both kinds and all versions at work on
// one store at once, some of them at the same paths.
func TestWritersTogether(t *testing.T) {
	clients := requireClients(t)
	s := newScratch(t)
	s.configure(t, "max-jobs = 2\n")
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	s.initialise(t, clients[0])
	const rounds = 5
	var writers sync.WaitGroup
	for _, c := range clients {
		for _, env := range [][]string{directEnv, nil} {
			// Their settings differ, and are in a file of that name.
			own := append([]string{"NIX_CONF_DIR=" + s.path("etc")}, env...)
			writers.Go(func() {
				for n := range rounds {
					common := shell(fmt.Sprintf("common-%d", n), "echo common > $out")
					mine := shell(fmt.Sprintf("mine-%d", n), fmt.Sprintf("echo %s %d > $out", c.version, len(env)))
					for _, expr := range []string{common, mine} {
						if _, err := s.run(t, c, own, "nix-build", build(expr)...); err != nil {
							t.Errorf("%s %v: %v", c.version, env, err)
							return
						}
					}
				}
			})
		}
	}
	writers.Wait()
	for _, c := range clients {
		for _, env := range [][]string{directEnv, nil} {
			own := append([]string{"NIX_CONF_DIR=" + s.path("etc")}, env...)
			s.must(t, c, own, "nix-store", "--verify", "--check-contents")
		}
	}
	mustStop(t, d)
	common, mine := 0, 0
	for _, line := range s.rows(t) {
		isOutput := strings.HasPrefix(line, "path ") && !strings.Contains(line, ".drv hash=")
		if isOutput && strings.Contains(line, "-common-") {
			common++
		}
		if isOutput && strings.Contains(line, "-mine-") {
			mine++
		}
	}
	if want := rounds * len(clients) * 2; common != rounds || mine != want {
		t.Errorf("%d common and %d own outputs, want %d and %d", common, mine, rounds, want)
	}
}

// TestReplacesUpstream takes over a store that upstream's daemon made, and
// hands it back.
func TestReplacesUpstream(t *testing.T) {
	clients := requireClients(t)
	c := clients[len(clients)-1]
	for _, upstream := range clients {
		t.Run(upstream.version, func(t *testing.T) {
			t.Parallel()
			s := newScratch(t)
			s.configureClient(t, c)
			theirs := upstream.program("nix-daemon")
			var outs []string
			for i, p := range []program{theirs, shared.daemon, theirs} {
				d := startDaemon(t, s, p, daemonOptions{})
				outs = append(outs, s.must(t, c, nil, "nix-build", build(shell(fmt.Sprintf("by-%d", i), "echo > $out"))...))
				s.must(t, c, nil, "nix-store", append([]string{"--check-validity"}, outs...)...)
				s.must(t, c, nil, "nix-store", "--verify", "--check-contents")
				mustStop(t, d)
			}
			s.verify(t, shared.clients[referenceVersion])
		})
	}
}

// TestBuiltOnce has many clients ask for the same derivation at once.
func TestBuiltOnce(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		d := startDaemon(t, s, shared.daemon, daemonOptions{})
		s.initialise(t, c)
		count := s.path("tmp/count")
		expr := shell("once", "echo run >> "+count+"; sleep 0.3; echo said; echo > $out")
		const askers = 6
		var clients sync.WaitGroup
		outs := make([]string, askers)
		for i := range askers {
			clients.Go(func() {
				var err error
				if outs[i], err = s.run(t, c, nil, "nix-build", build(expr)...); err != nil {
					t.Error(err)
				}
			})
		}
		clients.Wait()
		for _, out := range outs {
			if out == "" || out != outs[0] {
				t.Errorf("outputs %q", outs)
				break
			}
		}
		runs, err := os.ReadFile(count)
		if err != nil || strings.Count(string(runs), "run") != 1 {
			t.Errorf("built: %q, %v; want once", runs, err)
		}
		mustStop(t, d)
		s.verify(t, shared.clients[referenceVersion])
	})
}
