package compat

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// servedBy is who serves a user that may not open the store: a program, and the
// daemon behind it.
type servedBy struct{ store, daemon program }

// serveForwarding are an ordinary user's conversations with those.
type serveForwarding struct {
	scratch   scratch
	reference client
	old       program // the daemon of a release that does not say whom it trusts
	jobs      []hydraJobs
	pairs     []pair
}

// pair are two that are compared, in all versions from one on.
type pair struct {
	name          string
	by, reference servedBy
	oldest        int
	// unlogged says that no build of somebody who is trusted leaves its log, as is usual in a conversation of this kind. The
	// reference does not forward that, and ours only to a daemon that says whom it trusts.
	unlogged bool
}

// have calls f while the daemon runs, over a store that has what was exported,
// and gives what is left there.
func (f *serveForwarding) have(t *testing.T, by servedBy, conf string, exports [][]byte, do func(p program)) []string {
	t.Helper()
	s := f.scratch
	s.empty(t)
	s.create(t)
	s.configureClient(t, f.reference)
	s.configure(t, conf)
	f.direct(t, nil, "--verify")
	for _, export := range exports {
		f.direct(t, export, "--import")
	}
	daemon, store := by.daemon, by.store
	if daemon.path == shared.daemon.path {
		daemon.path = s.program(t)
	}
	if store.path == shared.daemon.path {
		store.path = s.path("home/nix-store")
		if err := os.Symlink(s.program(t), store.path); err != nil {
			t.Fatal(err)
		}
	}
	d := startDaemon(t, s, daemon, daemonOptions{users: true})
	do(store)
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	if err := s.awaitQuiet(); err != nil {
		t.Error(err)
	}
	state := s.state(t)
	s.verify(t, f.reference)
	return state
}

// direct has the reference work on the store.
func (f *serveForwarding) direct(t *testing.T, in []byte, args ...string) {
	t.Helper()
	cmd := exec.Command(f.reference.program("nix-store").path, args...)
	cmd.Env, cmd.Stdin = append(f.scratch.clientEnv(f.reference), directEnv...), bytes.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

// TestServeForwarding has Hydra's conversation with what an ordinary user's ssh
// starts, who may not open the store: it goes on to the daemon, which trusts
// the user or does not. Each of the two may be upstream's.
func TestServeForwarding(t *testing.T) {
	if err := otherUsers(); err != nil {
		t.Skip(err)
	}
	clients := requireClients(t)
	s := newScratch(t)
	f := serveForwarding{scratch: s, reference: clients[len(clients)-1]}
	f.jobs = makeHydraJobs(t, s, f.reference)
	f.old = clients[0].program("nix-daemon")
	theirs := f.reference.program("nix-daemon")
	store := f.reference.program("nix-store")
	f.pairs = []pair{
		{"ours", servedBy{shared.daemon, shared.daemon}, servedBy{store, theirs}, 1, true},
		{"ours before theirs", servedBy{shared.daemon, theirs}, servedBy{store, theirs}, newestServe, true},
		{"theirs before ours", servedBy{store, shared.daemon}, servedBy{store, theirs}, newestServe, false},
		{"ours before 2.3.7", servedBy{shared.daemon, f.old}, servedBy{store, f.old}, newestServe, false},
	}
	t.Run("trusted", f.trusted)
	t.Run("limits", f.limits)
	t.Run("not trusted", f.untrusted)
	t.Run("ends", f.ends)
}

const trustAlice = "trusted-users = root alice\n"

func (f *serveForwarding) trusted(t *testing.T) {
	f.compare(t, trustAlice, nil, func(p program, oldest int) map[string][]string {
		return f.talk(t, p, oldest, func(h *hydra, j hydraJobs) { h.step(j); h.more(j) })
	})
}

// limits has builds ended as the options say. The reference forwards none: its
// connection to the daemon has had its settings when they come, so that it
// would wait for the silent build for ever.
func (f *serveForwarding) limits(t *testing.T) {
	for name, daemon := range map[string]program{"ours": shared.daemon, "theirs": f.reference.program("nix-daemon"), "2.3.7": f.old} {
		f.have(t, servedBy{shared.daemon, daemon}, trustAlice, [][]byte{f.jobs[0].export, f.jobs[newestServe-1].export}, func(p program) {
			for minor, want := range map[int][]string{1: {"silent: status 8"}, newestServe: {"loud: status 11", "kept: status 3"}} {
				notes := talkAsHydra(t, f.scratch, p, "alice", minor, func(h *hydra) { h.limits(f.jobs[minor-1]) })
				for _, note := range want {
					if !slices.Contains(notes, note) {
						t.Errorf("before %s, 2.%d: no %q in %q", name, minor, note, notes)
					}
				}
			}
			kept, err := filepath.Glob(f.scratch.path("var/nix/builds/*"))
			older, olderErr := filepath.Glob(f.scratch.path("tmp/nix-build-fails-*"))
			if kept = append(kept, older...); err != nil || olderErr != nil || len(kept) != 1 {
				t.Errorf("before %s: kept %q, %v, %v", name, kept, err, olderErr)
			}
		})
	}
}

func (f *serveForwarding) untrusted(t *testing.T) {
	var exports [][]byte
	for _, j := range f.jobs {
		exports = append(exports, j.export)
	}
	f.compare(t, "", exports, func(p program, oldest int) map[string][]string {
		return f.talk(t, p, oldest, (*hydra).converseUntrusted)
	})
}

// talk converses in all versions from one on.
func (f *serveForwarding) talk(t *testing.T, p program, oldest int, converse func(*hydra, hydraJobs)) map[string][]string {
	t.Helper()
	notes := make(map[string][]string)
	for minor := oldest; minor <= newestServe; minor++ {
		notes[fmt.Sprint("2.", minor)] = talkAsHydra(t, f.scratch, p, "alice", minor, func(h *hydra) { converse(h, f.jobs[minor-1]) })
	}
	return notes
}

// ends asks for what ends the conversation of somebody in whose place the
// daemon is asked.
func (f *serveForwarding) ends(t *testing.T) {
	jobs := f.jobs[newestServe-1]
	all := append(endings(f.scratch.path("store/00000000000000000000000000000000-gone")),
		ending{name: "unsigned import", args: []string{"--write"}, ask: func(h *hydra) { h.number(4); h.request.Write(jobs.export) }},
		ending{name: "unsigned path", args: []string{"--write"}, ask: func(h *hydra) { h.askAdd(jobs, "") }},
		ending{name: "derivation not trusted", args: []string{"--write"}, ask: func(h *hydra) { h.askBuild(jobs.good, hydraOptions{}) }, waits: true},
	)
	f.compare(t, "", nil, func(p program, _ int) map[string][]string {
		answers := make(map[string][]string)
		for _, e := range all {
			answers[e.name] = []string{e.answer(t, f.scratch, p, "alice")}
		}
		return answers
	})
}

// compare has all do something, from a version on, and compares what is noted and
// what is left in the store.
func (f *serveForwarding) compare(t *testing.T, conf string, exports [][]byte, do func(p program, oldest int) map[string][]string) {
	t.Helper()
	for _, pair := range f.pairs {
		var want, got map[string][]string
		wantState := f.have(t, pair.reference, conf, exports, func(p program) { want = do(p, pair.oldest) })
		gotState := f.have(t, pair.by, conf, exports, func(p program) { got = do(p, pair.oldest) })
		for key, notes := range want {
			if diff := cmp.Diff(without(measured, notes), without(measured, got[key])); diff != "" {
				t.Errorf("%s, %s (-reference +got):\n%s", pair.name, key, diff)
			}
		}
		if conf == trustAlice && pair.unlogged {
			if !slices.ContainsFunc(wantState, isLog) {
				t.Errorf("%s: no logs of the reference's builds", pair.name)
			}
			wantState = slices.DeleteFunc(wantState, isLog)
		}
		if diff := cmp.Diff(wantState, gotState); diff != "" {
			t.Errorf("%s, left behind (-reference +got):\n%s", pair.name, diff)
		}
	}
}

// isLog tells what is left of logs of builds.
func isLog(line string) bool { return strings.HasPrefix(line, "var/log/drvs") }

// converseUntrusted is as much of it as there is for somebody who is not
// trusted, when the inputs are there.
func (h *hydra) converseUntrusted(j hydraJobs) {
	h.Helper()
	closure := []string{j.leaf, j.good.drv, j.fails.drv, j.loud.drv, j.silent.drv}
	slices.Sort(closure)
	h.validPaths(true, true, append([]string{filepath.Dir(j.leaf) + "/00000000000000000000000000000000-gone"}, closure...))
	sizes := h.pathInfos(closure)
	h.closure(true, j.good.drv)
	h.dump(j.leaf, sizes[j.leaf])
	h.add(j)
	h.buildPaths(j.good.drv+"!out,dev", j.leaf)
	h.buildPaths(j.fails.drv)
	h.closure(true, j.good.drv)
}
