package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/localstore"
	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// abroad plays all other machines: one with some slots. What it builds are files with the names of their outputs.
type abroad struct {
	w *world

	mu      sync.Mutex
	free    int
	changed chan struct{}
	needs   []Need
	built   []string
	tasks   []Task
	refs    int
	running int
	most    int
	silent  bool // about where impure outputs are
	// answer, if not nil, is asked instead of looking for a free slot.
	answer func(n int, need Need) (Answer, error)
	// end, if not nil, is how the nth build ends instead of with outputs.
	end func(ctx context.Context, n int, t Task) error
}

var _ Remote = (*abroad)(nil)
var _ Machines = (*abroad)(nil)

func newAbroad(t testing.TB, slots int) *abroad {
	m := &abroad{free: slots, changed: make(chan struct{})}
	t.Cleanup(func() { // after the scheduler's end
		if m.refs != 0 {
			t.Errorf("machines are still used %d times", m.refs)
		}
	})
	m.w = newWorld(t, func(o *Options) { o.Remote = m })
	return m
}

func (m *abroad) Machines(*settings.Settings) Machines { return m.Retain() }

func (m *abroad) Configured(*settings.Settings) bool { return true }

func (m *abroad) Key() string { return "abroad" }

func (m *abroad) Retain() Machines {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refs++
	return m
}

func (m *abroad) Release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refs--
}

func (m *abroad) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *abroad) Ask(_ context.Context, need Need) (Answer, Reservation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.needs = append(m.needs, need)
	answer := Accept
	if m.answer != nil {
		var err error
		if answer, err = m.answer(len(m.needs), need); err != nil || answer != Accept {
			return answer, nil, err
		}
	} else if m.free == 0 {
		return Postpone, nil, nil
	}
	m.free--
	return answer, &stay{m, need.DrvPath}, nil
}

type stay struct {
	m   *abroad
	drv storepath.Path
}

func (s *stay) Machine() string { return "ssh://far" }

func (s *stay) leave() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.free++
	s.m.running--
	close(s.m.changed)
	s.m.changed = make(chan struct{})
}

func (s *stay) Cancel() {
	s.m.mu.Lock()
	s.m.running++
	s.m.mu.Unlock()
	s.leave()
}

func (s *stay) Build(ctx context.Context, t Task) error {
	m := s.m
	m.mu.Lock()
	m.running++
	m.most = max(m.most, m.running)
	m.tasks = append(m.tasks, t)
	n, end := len(m.tasks), m.end
	m.mu.Unlock()
	defer s.leave()
	if end != nil {
		if err := end(ctx, n, t); err != nil {
			return err
		}
	}
	drv, err := m.w.store.ReadDerivation(ctx, s.drv)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.built = append(m.built, drv.Name)
	m.mu.Unlock()
	for _, name := range t.Wanted {
		if drv.Outputs[name].Kind == derivation.Impure {
			if err := m.bringImpure(ctx, drv, name, t); err != nil {
				return err
			}
			continue
		}
		if err := m.bring(ctx, s.drv, drv, name); err != nil {
			return err
		}
	}
	return nil
}

// bringImpure makes an output valid that nobody is to remember.
func (m *abroad) bringImpure(ctx context.Context, drv *derivation.Derivation, name string, t Task) error {
	text := fmt.Sprintf("made abroad for the %dth time", len(m.tasks))
	info, err := m.w.store.AddDump(ctx, localstore.DumpSpec{Name: drv.Name, Method: storepath.MethodNAR, Algo: nixhash.SHA256},
		strings.NewReader(string(nartest.File(text))), localstore.AddOptions{})
	if err == nil && !m.silent {
		t.Made(name, info.Path)
	}
	return err
}

// bring makes an output valid.
func (m *abroad) bring(ctx context.Context, drvPath storepath.Path, drv *derivation.Derivation, name string) error {
	nar := string(nartest.File("made abroad: " + name))
	info := &pathinfo.Info{NarHash: nixhash.Of(nixhash.SHA256, nar), NarSize: uint64(len(nar)), Deriver: drvPath}
	info.Path = drv.Outputs[name].Path
	if info.Path.IsZero() {
		added, err := m.w.store.AddDump(ctx, localstore.DumpSpec{Name: drv.Name, Method: storepath.MethodNAR, Algo: nixhash.SHA256},
			strings.NewReader(nar), localstore.AddOptions{})
		if err != nil {
			return err
		}
		ids, err := m.w.sched.outputIDs(ctx, drvPath, drv)
		if err != nil {
			return err
		}
		return m.w.store.RegisterRealisation(ctx, &pathinfo.Realisation{ID: ids(name), OutPath: added.Path})
	}
	// As a hook does, whose process has no lock of its own.
	held := func(storepath.Path) bool { return true }
	return m.w.store.AddNAR(ctx, info, strings.NewReader(nar), localstore.AddOptions{LocksHeld: held})
}

func TestElsewhere(t *testing.T) {
	m := newAbroad(t, 1)
	src := m.w.source("src", "source")
	drv := m.w.drv("far", "exit 1", func(d *derivation.Derivation) {
		d.InputSrcs = []storepath.Path{src}
		d.Env["requiredSystemFeatures"] = "one two"
		d.Env["dev"] = ""
		d.Outputs["dev"] = derivation.Output{Kind: derivation.Deferred}
	})
	m.end = func(_ context.Context, _ int, task Task) error {
		fmt.Fprintln(task.Output, "said abroad")
		for _, line := range []string{
			`@nix {"action":"start","id":7,"level":3,"type":105,"text":"inner","fields":["d","",1,1]}`,
			`@nix {"action":"result","id":7,"type":101,"fields":["an inner line"]}`,
			`@nix {"action":"result","id":7,"type":104,"fields":["a <phase>"]}`,
			`@nix {"action":"msg","level":3,"msg":"a message"}`,
		} {
			if !task.Log.Line(line) {
				t.Errorf("line not understood: %s", line)
			}
		}
		if task.Log.Line("something else") {
			t.Error("understood what is no message")
		}
		return nil
	}
	if got := m.w.read(m.w.mustBuild(drv)); got != "made abroad: out" {
		t.Errorf("output: %s", got)
	}
	need := m.needs[0]
	if need.System != "x86_64-linux" || !slices.Equal(need.Features, []string{"one", "two"}) || need.DrvPath != drv || need.Local || need.Willing {
		t.Errorf("need %+v", need)
	}
	if task := m.tasks[0]; !slices.Equal(task.Wanted, []string{"dev", "out"}) || !slices.Equal(task.Inputs, []storepath.Path{src}) {
		t.Errorf("wanted %v, inputs %v", task.Wanted, task.Inputs)
	}
	want := []string{"building '" + m.w.print(drv) + "' on 'ssh://far'", "inner"}
	if diff := cmp.Diff(want, m.w.log.activities(activity.Build)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"said abroad", "an inner line"}, m.w.log.lines()); diff != "" {
		t.Error(diff)
	}
	if m.w.log.unstopped() != 0 || m.w.log.logged() != "a message" {
		t.Errorf("%d activities open; messages: %s", m.w.log.unstopped(), m.w.log.logged())
	}
	wantLog := "said abroad\nan inner line\n@nix {\"action\":\"setPhase\",\"phase\":\"a <phase>\"}\n"
	if diff := cmp.Diff(wantLog, m.w.buildLog(drv)); diff != "" {
		t.Error(diff)
	}
}

func (w *world) buildLog(drv storepath.Path) string {
	w.Helper()
	r, err := w.store.OpenBuildLog(drv)
	if err != nil {
		w.Fatal(err)
	}
	defer r.Close()
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

// TestElsewhereOrHere is about who builds what.
func TestElsewhereOrHere(t *testing.T) {
	accept := func(int, Need) (Answer, error) { return Accept, nil }
	decline := func(int, Need) (Answer, error) { return Decline, nil }
	for _, test := range []struct {
		name    string
		change  func(*derivation.Derivation)
		set     func(*settings.Settings)
		answer  func(int, Need) (Answer, error)
		abroad  bool
		asked   int
		failure string
	}{
		{name: "rather abroad", answer: accept, abroad: true, asked: 1},
		{name: "declined", answer: decline, asked: 1},
		{name: "rather here", answer: accept, change: func(d *derivation.Derivation) { d.Env["preferLocalBuild"] = "1" }},
		{name: "rather here, but no job may", answer: accept, change: func(d *derivation.Derivation) { d.Env["preferLocalBuild"] = "1" },
			set: func(s *settings.Settings) { s.MaxJobs = 0 }, abroad: true, asked: 1},
		{name: "no job may, declined", answer: decline, set: func(s *settings.Settings) { s.MaxJobs = 0 }, asked: 1,
			failure: "Reason: local builds are disabled (max-jobs = 0)"},
		{name: "another system", answer: accept, change: func(d *derivation.Derivation) { d.Platform = "vax-vms" }, abroad: true, asked: 1},
		{name: "another system, declined", answer: decline, change: func(d *derivation.Derivation) { d.Platform = "vax-vms" }, asked: 1,
			failure: "Required system: 'vax-vms'"},
		{name: "postponed with a slot here", asked: 2, abroad: true, set: func(s *settings.Settings) { s.BuildPollInterval = 1 },
			answer: func(n int, need Need) (Answer, error) {
				if n == 1 {
					return Postpone, nil
				}
				return Accept, nil
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newAbroad(t, 9)
			m.answer = test.answer
			change, set := test.change, test.set
			if change == nil {
				change = func(*derivation.Derivation) {}
			}
			if set != nil {
				m.w.set(set)
			}
			drv := m.w.drv("x", "echo here > $out", change)
			res := m.w.build(drv)
			if len(m.needs) != test.asked || (len(m.built) == 1) != test.abroad {
				t.Errorf("asked %d times, built abroad %v", len(m.needs), m.built)
			}
			if text := withoutColours(res.ErrorMsg); res.Status.Success() != (test.failure == "") || !strings.Contains(text, test.failure) {
				t.Errorf("status %d: %s", res.Status, text)
			}
			if m.w.sched.Status().Running != 0 {
				t.Error("a slot is lost")
			}
		})
	}
}

// TestElsewhereNotAsked shows for what no machine is looked for: modes that are about this store, and derivations
// that are not in it.
func TestElsewhereNotAsked(t *testing.T) {
	m := newAbroad(t, 1)
	drv := m.w.drv("local", "echo here > $out")
	m.answer = func(int, Need) (Answer, error) { return Decline, nil }
	m.w.mustBuild(drv)
	m.needs = nil
	for _, mode := range []derivation.BuildMode{derivation.BuildCheck, derivation.BuildRepair} {
		if res := m.w.buildMode(drv, mode); !res.Status.Success() {
			t.Errorf("mode %d: %s", mode, res.ErrorMsg)
		}
	}
	d, err := m.w.store.ReadDerivation(m.w.ctx, drv)
	if err != nil {
		t.Fatal(err)
	}
	basic := d.BasicDerivation
	basic.Outputs = map[string]derivation.Output{"out": {Kind: derivation.InputAddressed, Path: testPath(1, "local")}}
	basic.Env["out"] = m.w.print(testPath(1, "local"))
	if res, err := m.w.sched.BuildDerivation(m.w.ctx, m.w.sess, testPath(2, "unknown.drv"), &basic, derivation.BuildNormal); err != nil || !res.Status.Success() {
		t.Errorf("BuildDerivation: %v, %s", err, res.ErrorMsg)
	}
	if len(m.needs) != 0 {
		t.Errorf("asked about %v", m.needs)
	}
}

func TestElsewhereFails(t *testing.T) {
	m := newAbroad(t, 1)
	drv := m.w.drv("fails", "")
	m.end = func(_ context.Context, _ int, task Task) error {
		fmt.Fprintln(task.Output, "last words")
		return &RemoteFailure{ExitCode: 1}
	}
	got := m.w.mustFail(drv, derivation.StatusMiscFailure)
	want := "Cannot build '" + m.w.print(drv) + "'.\nReason: builder failed with exit code 1.\nOutput paths:\n  " +
		m.w.print(m.w.out(drv, "out")) + "\nLast 1 log lines:\n> last words\nFor full logs, run:\n  nix log " + m.w.print(drv)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	m.end = func(_ context.Context, _ int, task Task) error {
		_, err := task.Output.Write([]byte("more than that"))
		return err
	}
	m.w.set(func(s *settings.Settings) { s.MaxBuildLogSize = 5 })
	got = m.w.mustFail(drv, derivation.StatusLogLimitExceeded)
	if want := "building derivation '" + m.w.print(drv) + "' killed after writing more than 5 bytes of log output"; got != want {
		t.Errorf("got %s", got)
	}
	m.end = func(context.Context, int, Task) error { return errors.New("odd") }
	if _, err := m.w.sched.BuildPathsWithResults(m.w.ctx, m.w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal); err == nil || err.Error() != "odd" {
		t.Errorf("error %v", err)
	}
	m.answer = func(int, Need) (Answer, error) { return Decline, Trace("while asking", errors.New("no answer")) }
	if _, err := m.w.sched.BuildPathsWithResults(m.w.ctx, m.w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal); err == nil || err.Error() != "no answer" {
		t.Errorf("error %v", err)
	}
}

// TestElsewhereMissing is about a machine that says that it has built what it has not brought.
func TestElsewhereMissing(t *testing.T) {
	m := newAbroad(t, 1)
	drv := m.w.drv("missing", "")
	m.end = func(ctx context.Context, n int, task Task) error { m.tasks[n-1].Wanted[0] = "none"; return nil }
	_, err := m.w.sched.BuildPathsWithResults(m.w.ctx, m.w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
	if err == nil {
		t.Fatal("no error")
	}
}

// TestElsewhereLost shows that a machine that gets lost makes nothing fail.
func TestElsewhereLost(t *testing.T) {
	m := newAbroad(t, 1)
	m.end = func(_ context.Context, n int, _ Task) error {
		if n < 3 {
			return ErrLost
		}
		return nil
	}
	if got := m.w.read(m.w.mustBuild(m.w.drv("lost", ""))); got != "made abroad: out" {
		t.Errorf("output: %s", got)
	}
	if len(m.tasks) != 3 || m.w.log.unstopped() != 0 {
		t.Errorf("%d attempts, %d activities open", len(m.tasks), m.w.log.unstopped())
	}
}

// TestElsewhereMany has more derivations than the machine has slots: none more run at once, and there are not many more
// questions than builds. None takes a slot here.
func TestElsewhereMany(t *testing.T) {
	const n, slots = 60, 3
	m := newAbroad(t, slots)
	m.w.set(func(s *settings.Settings) { s.MaxJobs = 0 })
	var drvs []storepath.Path
	for i := range n {
		drvs = append(drvs, m.w.drv(fmt.Sprintf("many-%d", i), ""))
	}
	release := make(chan struct{})
	m.end = func(context.Context, int, Task) error { <-release; return nil }
	done := m.w.request(m.w.ctx, drvs...)
	m.w.until(func() bool { return len(m.w.log.activities(activity.BuildWaiting)) > 0 })
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(m.built) != n || m.most > slots || len(m.needs) > 3*n {
		t.Errorf("built %d with at most %d at once, %d questions", len(m.built), m.most, len(m.needs))
	}
	if waits := m.w.log.activities(activity.BuildWaiting); !strings.HasPrefix(withoutColours(waits[0]), "waiting for a machine to build '") {
		t.Errorf("waits %v", waits)
	}
}

// TestElsewhereOverflow has what the machines do not take built here, when there is a slot.
func TestElsewhereOverflow(t *testing.T) {
	const n = 12
	m := newAbroad(t, 1)
	m.answer = func(_ int, need Need) (Answer, error) {
		switch {
		case m.free > 0:
			return Accept, nil
		case need.Willing:
			return Decline, nil
		}
		return Postpone, nil
	}
	release := make(chan struct{})
	m.end = func(context.Context, int, Task) error { <-release; return nil }
	var drvs []storepath.Path
	for i := range n {
		drvs = append(drvs, m.w.drv(fmt.Sprintf("over-%d", i), "echo here > $out"))
	}
	done := m.w.request(m.w.ctx, drvs...)
	m.w.until(func() bool { return len(m.w.log.activities(activity.Build)) == n })
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(m.built) != 1 {
		t.Errorf("built abroad: %v", m.built)
	}
}

// TestElsewhereFair has one user ask for many derivations, another later for one: that is not the last.
func TestElsewhereFair(t *testing.T) {
	m := newAbroad(t, 1)
	m.w.set(func(s *settings.Settings) { s.MaxJobs = 0 })
	begun, release := make(chan struct{}, 100), make(chan struct{})
	m.end = func(context.Context, int, Task) error {
		begun <- struct{}{}
		<-release
		return nil
	}
	var drvs []storepath.Path
	for i := range 20 {
		drvs = append(drvs, m.w.drv(fmt.Sprintf("alice-%d", i), ""))
	}
	alices := m.w.request(m.w.ctx, drvs...)
	<-begun
	bob := *m.w.sess
	bob.User, bob.Client, bob.Log = "bob", 2, &recorder{}
	drv := m.w.drv("bob", "")
	bobs := ask(m.w.ctx, m.w.sched, &bob, drv)
	m.w.until(func() bool { return len(m.w.sched.Status().Builds) == 21 })
	close(release)
	if err := errors.Join(<-alices, <-bobs); err != nil {
		t.Fatal(err)
	}
	if at := slices.Index(m.built, "bob"); at < 0 || at > 3 {
		t.Errorf("order %v", m.built)
	}
}

// TestElsewhereCancel shows that a build abroad ends when nobody wants it any more, and not before.
func TestElsewhereCancel(t *testing.T) {
	m := newAbroad(t, 1)
	begun, ended := make(chan struct{}), make(chan struct{})
	m.end = func(ctx context.Context, _ int, _ Task) error {
		close(begun)
		<-ctx.Done()
		close(ended)
		return context.Cause(ctx)
	}
	drv := m.w.drv("endless", "")
	ctx, cancel := context.WithCancel(m.w.ctx)
	first := m.w.request(ctx, drv)
	<-begun
	other := *m.w.sess
	other.Client, other.Log = 2, &recorder{}
	ctx2, cancel2 := context.WithCancel(m.w.ctx)
	second := ask(ctx2, m.w.sched, &other, drv)
	m.w.until(func() bool { b := m.w.sched.Status().Builds; return len(b) == 1 && len(b[0].Clients) == 2 })
	cancel()
	<-first
	select {
	case <-ended:
		t.Error("the build ended though somebody wanted it")
	default:
	}
	cancel2()
	<-second
	<-ended
}

// TestElsewhereLocked has the outputs locked by somebody else: others are asked for meanwhile, and what that one has
// made is taken.
func TestElsewhereLocked(t *testing.T) {
	m := newAbroad(t, 1)
	slow, quick := m.w.drv("slow", ""), m.w.drv("quick", "")
	out := m.w.out(slow, "out")
	held, err := pathlock.New().Lock(m.w.ctx, []string{m.w.store.RealPath(out)}, pathlock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	done := m.w.request(m.w.ctx, slow, quick)
	m.w.until(func() bool { ok, _ := m.w.store.IsValid(m.w.ctx, m.w.out(quick, "out")); return ok })
	drv, err := m.w.store.ReadDerivation(m.w.ctx, slow)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.bring(m.w.ctx, slow, drv, "out"); err != nil {
		t.Fatal(err)
	}
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"quick"}, m.built); diff != "" {
		t.Error(diff)
	}
}

func TestElsewhereContentAddressed(t *testing.T) {
	m := newAbroad(t, 1)
	m.w.set(func(s *settings.Settings) {
		s.ExperimentalFeatures = settings.Features(settings.NixCommand, settings.CADerivations)
	})
	drv := m.w.drv("ca", "", func(d *derivation.Derivation) {
		d.Outputs["out"] = derivation.Output{Kind: derivation.FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	})
	res := m.w.build(drv)
	if !res.Status.Success() || m.w.read(res.BuiltOutputs["out"].OutPath) != "made abroad: out" {
		t.Fatalf("%+v", res)
	}
	if !slices.Equal(m.needs[0].Features, []string{"ca-derivations"}) {
		t.Errorf("features %v", m.needs[0].Features)
	}
}

// TestElsewhereImpure has an impure derivation built anew each time; a machine that does not tell what it has made has
// made nothing.
func TestElsewhereImpure(t *testing.T) {
	m := newAbroad(t, 1)
	m.w.set(func(s *settings.Settings) {
		s.ExperimentalFeatures = settings.Features(settings.NixCommand, settings.CADerivations, settings.ImpureDerivations)
	})
	drv := m.w.drv("impure", "", func(d *derivation.Derivation) {
		d.Outputs["out"] = derivation.Output{Kind: derivation.Impure, Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	})
	for i, text := range []string{"made abroad for the 1th time", "made abroad for the 2th time"} {
		res := m.w.build(drv)
		if !res.Status.Success() || m.w.read(res.BuiltOutputs["out"].OutPath) != text {
			t.Fatalf("%d: %+v", i, res)
		}
	}
	m.silent = true
	if err := m.w.sched.BuildPaths(m.w.ctx, m.w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal); err == nil ||
		!strings.Contains(err.Error(), "some outputs are unexpectedly invalid") {
		t.Errorf("without a word: %v", err)
	}
}

// TestElsewhereHook has the administrator's hook run after a build abroad.
func TestElsewhereHook(t *testing.T) {
	m := newAbroad(t, 1)
	hook := m.w.root + "/hook"
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho $OUT_PATHS > "+m.w.root+"/ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.w.set(func(s *settings.Settings) { s.PostBuildHook = hook })
	out := m.w.mustBuild(m.w.drv("hooked", ""))
	ran, err := os.ReadFile(m.w.root + "/ran")
	if err != nil || string(ran) != m.w.print(out)+"\n" {
		t.Errorf("%v: %s", err, ran)
	}
}
