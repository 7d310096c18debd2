package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"nixdaemon/localstore"
	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/build"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/settings"
)

// far is another machine's store.
type far struct {
	peer.Store // for what is not used
	w          *poolWorld
	name       string
	cfg        peer.Config
	stderr     func(string)

	mu      sync.Mutex
	valid   map[storepath.Path]string // archives
	sent    []storepath.Path
	drvs    []*derivation.BasicDerivation
	whole   []storepath.Path // derivations built by their path
	opened  int
	closed  int
	rested  int
	late    string // what is printed last arrives late
	trust   protocol.Trust
	refuses error // imports
	result  derivation.BuildResult
	connect error
	during  func(ctx context.Context, log activity.Sink) error
}

func (f *far) Config() peer.Config { return f.cfg }

func (f *far) URI() string { return "ssh-ng://" + f.name }

func (f *far) Connect(context.Context) error { return f.connect }

func (f *far) Trust(context.Context) (protocol.Trust, error) { return f.trust, nil }

func (f *far) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return nil
}

func (f *far) ValidPaths(_ context.Context, paths []storepath.Path, _ bool) ([]storepath.Path, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var valid []storepath.Path
	for _, p := range paths {
		if _, ok := f.valid[p]; ok {
			valid = append(valid, p)
		}
	}
	return valid, nil
}

func (f *far) Import(ctx context.Context, infos []*pathinfo.Info, nar func(context.Context, *pathinfo.Info, io.Writer) error, o peer.ImportOptions) error {
	if f.refuses != nil {
		return f.refuses
	}
	for _, info := range infos {
		var b bytes.Buffer
		if err := nar(ctx, info, &b); err != nil {
			return err
		}
		if nixhash.Of(nixhash.SHA256, b.String()) != info.NarHash || info.Ultimate || !o.DontCheckSigs {
			return &protocol.Error{Message: "not what was announced"}
		}
		f.mu.Lock()
		f.valid[info.Path] = b.String()
		f.sent = append(f.sent, info.Path)
		f.mu.Unlock()
	}
	return nil
}

func (f *far) BuildDerivation(ctx context.Context, drvPath storepath.Path, drv *derivation.BasicDerivation, o peer.BuildOptions) (derivation.BuildResult, error) {
	f.mu.Lock()
	f.drvs = append(f.drvs, drv)
	f.mu.Unlock()
	return f.build(ctx, drv, o)
}

func (f *far) BuildPathsWithResults(ctx context.Context, paths []derivation.DerivedPath, o peer.BuildOptions) ([]derivation.KeyedBuildResult, error) {
	f.mu.Lock()
	p := paths[0].Drv.Path
	_, there := f.valid[p]
	f.whole = append(f.whole, p)
	f.mu.Unlock()
	if !there {
		return nil, &protocol.Error{Message: "no such derivation"}
	}
	drv, err := f.w.store.ReadDerivation(ctx, p)
	if err != nil {
		return nil, err
	}
	res, err := f.build(ctx, &drv.BasicDerivation, o)
	return []derivation.KeyedBuildResult{{Path: paths[0], BuildResult: res}}, err
}

func (f *far) build(ctx context.Context, drv *derivation.BasicDerivation, o peer.BuildOptions) (derivation.BuildResult, error) {
	if f.during != nil {
		if err := f.during(ctx, o.Log); err != nil {
			return derivation.BuildResult{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, out := range drv.Outputs {
		if !out.Path.IsZero() {
			f.valid[out.Path] = string(nartest.File("built on " + f.name))
		}
	}
	return f.result, nil
}

func (f *far) PathInfos(_ context.Context, paths []storepath.Path) ([]*pathinfo.Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var infos []*pathinfo.Info
	for _, p := range paths {
		if nar, ok := f.valid[p]; ok {
			infos = append(infos, &pathinfo.Info{Path: p, NarHash: nixhash.Of(nixhash.SHA256, nar), NarSize: uint64(len(nar)), Ultimate: true})
		}
	}
	return infos, nil
}

func (f *far) NAR(_ context.Context, p storepath.Path) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return io.NopCloser(strings.NewReader(f.valid[p])), nil
}

// poolWorld is a store with machines.
type poolWorld struct {
	*testing.T
	store    *localstore.Store
	b        *Builders
	set      *settings.Settings
	machines map[string]*far
	now      time.Time
	state    string
}

func newPoolWorld(t *testing.T, builders string) *poolWorld {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &poolWorld{T: t, machines: make(map[string]*far), now: time.Unix(1e9, 0), state: root + "/var"}
	w.store, err = localstore.Open(t.Context(), localstore.Options{
		StoreDir: storepath.Dir(root + "/store"), StateDir: root + "/var", LogDir: root + "/log", UseWAL: true,
		Features: derivation.AllFeatures(), CADerivations: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.b = New(Options{Store: w.store, Dir: w.store.Dir(), StateDir: root + "/var", IDs: new(activity.IDs), Log: zerolog.Nop(), Now: func() time.Time { return w.now }})
	w.b.sites.open = w.open
	w.set = settings.Defaults(settings.Environment{System: "x86_64-linux", CPUs: 2}).Clone()
	w.set.Builders = builders
	t.Cleanup(func() {
		if err := errors.Join(w.b.Close(), w.store.Close()); err != nil {
			t.Error(err)
		}
		for _, m := range w.machines {
			if m.opened != m.closed {
				t.Errorf("%s: %d connections opened, %d closed", m.name, m.opened, m.closed)
			}
		}
	})
	return w
}

// machine is the one with that host name.
func (w *poolWorld) machine(name string) *far {
	if w.machines[name] == nil {
		w.machines[name] = &far{w: w, name: name, valid: make(map[storepath.Path]string)}
	}
	return w.machines[name]
}

func (w *poolWorld) open(_ context.Context, ref settings.StoreReference, o peer.Options) (peer.Store, error) {
	m := w.machine(ref.Authority)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened++
	m.stderr = o.Stderr
	m.cfg.Kind = peer.SSHNG
	if ref.Scheme == "ssh" {
		m.cfg.Kind = peer.SSH
	}
	if m.connect != nil {
		o.Stderr("ssh is sad")
	}
	if m.cfg.Kind == peer.SSH {
		return restingFar{m}, nil
	}
	return m, nil
}

// restingFar is one whose builds are heard to their end only when the connection rests or ends.
type restingFar struct{ *far }

func (f restingFar) Rest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rested++
	f.sayLate()
}

func (f restingFar) Close() error {
	f.mu.Lock()
	f.sayLate()
	f.mu.Unlock()
	return f.far.Close()
}

func (f *far) sayLate() {
	if f.late != "" {
		f.stderr(f.late)
	}
	f.late = ""
}

func (w *poolWorld) add(name, text string, refs ...storepath.Path) storepath.Path {
	w.Helper()
	info, err := w.store.AddDump(w.Context(), localstore.DumpSpec{Name: name, Method: storepath.MethodText, Algo: nixhash.SHA256, References: storepath.SortUnique(refs)},
		strings.NewReader(text), localstore.AddOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return info.Path
}

// drv makes a derivation with sources and, if with is set, the output of another one as input.
func (w *poolWorld) drv(name string, sources []storepath.Path, with *storepath.Path, change ...func(*derivation.Derivation)) storepath.Path {
	w.Helper()
	d := &derivation.Derivation{
		BasicDerivation: derivation.BasicDerivation{
			Name: name, Platform: "x86_64-linux", Builder: "/bin/sh", Env: map[string]string{"out": ""}, InputSrcs: sources,
			Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}},
		},
		InputDrvs: map[storepath.Path]*derivation.InputOutputs{},
	}
	refs := slices.Clone(sources)
	if with != nil {
		d.InputDrvs[*with] = &derivation.InputOutputs{Outputs: []string{"out"}}
		refs = append(refs, *with)
	}
	for _, f := range change {
		f(d)
	}
	hasher := &derivation.Hasher{Dir: w.store.Dir(), Load: w.store.ReadDerivation, Memo: derivation.NewMemo(10)}
	if err := hasher.FillOutputPaths(w.Context(), d); err != nil {
		w.Fatal(err)
	}
	text, err := d.ATerm(w.store.Dir())
	if err != nil {
		w.Fatal(err)
	}
	return w.add(name+".drv", text, refs...)
}

func (w *poolWorld) out(drv storepath.Path) storepath.Path {
	w.Helper()
	d, err := w.store.ReadDerivation(w.Context(), drv)
	if err != nil {
		w.Fatal(err)
	}
	return d.Outputs["out"].Path
}

func (w *poolWorld) ask(drv storepath.Path, n *notes, features ...string) (build.Answer, build.Reservation) {
	w.Helper()
	need := build.Need{System: "x86_64-linux", DrvPath: drv, Features: features, Settings: w.set, Log: n}
	answer, r, err := w.b.Machines(w.set).Ask(w.Context(), need)
	if err != nil {
		w.Fatal(err)
	}
	return answer, r
}

// build wants a machine to accept, and has it build.
func (w *poolWorld) build(drv storepath.Path, n *notes, inputs ...storepath.Path) error {
	w.Helper()
	answer, r := w.ask(drv, n)
	if answer != build.Accept {
		w.Fatalf("answer %v; %q", answer, n.messages)
	}
	return r.Build(w.Context(), build.Task{Inputs: inputs, Wanted: []string{"out"}, Log: n, Output: n})
}

func plainText(lines []string) string {
	return strings.NewReplacer("\x1b[35;1m", "", "\x1b[31;1m", "", "\x1b[0m", "").Replace(strings.Join(lines, "\n"))
}

// TestPoolBuilds copies what is missing, builds, brings the output back, and does so again over the same connection.
func TestPoolBuilds(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a")
	a := w.machine("a")
	known, missing := w.add("known", "1"), w.add("missing", "2")
	a.valid[known] = string(nartest.File("1"))
	below := w.drv("below", nil, nil)
	drv := w.drv("x", []storepath.Path{known}, &below)
	n := &notes{}
	a.during = func(_ context.Context, log activity.Sink) error {
		log.Start(7, activity.Info, activity.Build, "building far away", nil, 0)
		log.Result(7, activity.BuildLogLine, []activity.Field{activity.Text("a line")})
		log.Result(8, activity.BuildLogLine, []activity.Field{activity.Text("of nobody")})
		if w.machines["a"].sent == nil {
			t.Error("built before the inputs were there")
		}
		if f, late, err := w.b.load.upload(t.Context(), &Machine{URI: "ssh-ng://a"}); err != nil || late {
			t.Errorf("upload lock during the build: %v", err)
		} else {
			f.Close()
		}
		return nil
	}
	if err := w.build(drv, n, known, missing); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.sent, []storepath.Path{missing}) {
		t.Errorf("sent %v", a.sent)
	}
	if got := a.drvs[0].InputSrcs; len(got) != 2 {
		t.Errorf("sources %v", got)
	}
	info, err := w.store.PathInfo(t.Context(), w.out(drv))
	if err != nil || info.Ultimate {
		t.Errorf("%+v, %v", info, err)
	}
	want := []string{"connecting to 'ssh-ng://a'", "waiting for the upload lock to 'ssh-ng://a'", "copying dependencies to 'ssh-ng://a'", "copying 1 paths",
		"copying path '" + w.store.Dir().Print(missing) + "' to 'ssh-ng://a'", "building far away", "copying outputs from 'ssh-ng://a'", "copying 1 paths",
		"copying path '" + w.store.Dir().Print(w.out(drv)) + "' from 'ssh-ng://a'"}
	if diff := cmp.Diff(want, n.starts); diff != "" {
		t.Error(diff)
	}
	if !slices.Contains(n.results, "101 a line") || slices.Contains(n.results, "101 of nobody") {
		t.Errorf("results %q", n.results)
	}
	if err := w.build(w.drv("y", []storepath.Path{known}, nil), n, known); err != nil {
		t.Fatal(err)
	}
	if got := a.drvs[1].InputSrcs; a.opened != 1 || !slices.Equal(got, []storepath.Path{known}) {
		t.Errorf("%d connections; sources %v", a.opened, got)
	}
}

// TestPoolTrust is about machines that do not trust us: they get all derivations, unless the output's contents speak
// for themselves.
func TestPoolTrust(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a")
	a := w.machine("a")
	a.trust = protocol.NotTrusted
	below := w.drv("below", nil, nil)
	drv := w.drv("x", nil, &below)
	if err := w.build(drv, &notes{}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.whole, []storepath.Path{drv}) || len(a.drvs) != 0 || !slices.Contains(a.sent, below) {
		t.Errorf("built %v, %v; sent %v", a.whole, a.drvs, a.sent)
	}
	fixed := w.drv("fixed", nil, nil, func(d *derivation.Derivation) {
		ca := storepath.ContentAddress{Method: storepath.MethodFlat, Hash: nixhash.Of(nixhash.SHA256, "built on a")}
		d.Outputs["out"] = derivation.Output{Kind: derivation.FixedCA, CA: ca}
	})
	if err := w.build(fixed, &notes{}); err != nil {
		t.Log(err) // what the fake has there need not be right
	}
	if len(a.drvs) != 1 {
		t.Error("a fixed output was not built by its derivation alone")
	}
	a.refuses = &protocol.Error{Message: "cannot add path 'x' because it lacks a signature by a trusted key"}
	n := &notes{}
	err := w.build(w.drv("z", nil, nil), n, w.add("src", "3"))
	if f, ok := errors.AsType[*build.RemoteFailure](err); !ok || f.ExitCode != 1 || plainText(n.messages) != "error: cannot add path 'x' because it lacks a signature by a trusted key" {
		t.Errorf("%v; %s", err, plainText(n.messages))
	}
}

func TestPoolFails(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a")
	a := w.machine("a")
	a.result = derivation.BuildResult{Status: derivation.StatusPermanentFailure, ErrorMsg: "no luck"}
	w.set.KeepFailed = true
	drv := w.drv("x", nil, nil)
	n := &notes{}
	err := w.build(drv, n)
	if f, ok := errors.AsType[*build.RemoteFailure](err); !ok || f.ExitCode != 1 {
		t.Errorf("error %v", err)
	}
	want := "warning: The failed build directory was kept on the remote builder due to `--keep-failed`. You can re-run the command with `--builders ''` to disable remote building for this invocation.\n" +
		"error: build of '" + w.store.Dir().Print(drv) + "' on 'ssh-ng://a' failed: no luck"
	if diff := cmp.Diff(want, plainText(n.messages)); diff != "" {
		t.Error(diff)
	}
	if a.closed != 0 {
		t.Error("a failed build has cost the connection")
	}
}

// slowFar is a machine whose connection ends only when all others do, too.
type slowFar struct {
	*far
	closing *sync.WaitGroup
}

func (f slowFar) Close() error {
	f.closing.Done()
	all := make(chan struct{})
	go func() { f.closing.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(time.Minute):
		f.w.Error("connections are closed one after the other")
	}
	f.far.Close()
	return errors.New(f.name + " is sad")
}

// TestRetireSideBySide closes idle connections side by side, and tells of each that could not be.
func TestRetireSideBySide(t *testing.T) {
	w := newPoolWorld(t, "")
	var closing sync.WaitGroup
	for _, name := range []string{"a", "a", "b"} {
		a := w.machine(name)
		a.opened++
		closing.Add(1)
		if !w.b.sites.keep(&Machine{URI: "ssh-ng://" + name}, &link{store: slowFar{a, &closing}}) {
			t.Fatal("a connection was not kept")
		}
	}
	err := w.b.Retire()
	if text := fmt.Sprint(err); strings.Count(text, "a is sad") != 2 || strings.Count(text, "b is sad") != 1 {
		t.Errorf("error %q", text)
	}
}

// TestPoolLost has machines break off: others build then, and the first is asked again later.
func TestPoolLost(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a - - 1 2; ssh-ng://b")
	a := w.machine("a")
	a.during = func(context.Context, activity.Sink) error { return io.ErrUnexpectedEOF }
	drv := w.drv("x", nil, nil)
	n := &notes{}
	if err := w.build(drv, n); err != build.ErrLost || plainText(n.messages) != "cannot build on 'ssh-ng://a': error: unexpected EOF" {
		t.Fatalf("%v; %s", err, plainText(n.messages))
	}
	name := func() string {
		_, r := w.ask(drv, n)
		defer r.Cancel()
		return r.Machine()
	}
	if got := name(); got != "ssh-ng://b" {
		t.Errorf("next %s", got)
	}
	w.now = w.now.Add(firstAvoided + time.Second)
	if got := name(); got != "ssh-ng://a" {
		t.Errorf("later %s", got)
	}
	if a.closed != 1 {
		t.Error("the broken connection is kept")
	}
}

// TestPoolConnect is about machines that cannot be reached.
func TestPoolConnect(t *testing.T) {
	w := newPoolWorld(t, "ssh://a - - 1 2; ssh-ng://b")
	w.machine("a").connect = errors.New("no route")
	drv := w.drv("x", nil, nil)
	n := &notes{}
	_, r := w.ask(drv, n)
	if r.Machine() != "ssh-ng://b" || plainText(n.messages) != "cannot build on 'ssh://a': error: no route: ssh is sad" {
		t.Errorf("%s; %s", r.Machine(), plainText(n.messages))
	}
	// The only one that is left is busy: rather wait than ask the other again.
	n = &notes{}
	if answer, _ := w.ask(drv, n); answer != build.Postpone || len(n.messages) != 0 {
		t.Errorf("%v; %q", answer, n.messages)
	}
	r.Cancel()
	// When all are out of reach the next question tries again.
	w.machine("b").connect = errors.New("down")
	w.b.sites.expire(&Machine{URI: "ssh-ng://b"})
	for i := range 2 {
		n = &notes{}
		if answer, _ := w.ask(drv, n); answer != build.Decline || !strings.Contains(plainText(n.messages), "'ssh-ng://b': error: down") {
			t.Errorf("%d: %v; %s", i, answer, plainText(n.messages))
		}
	}
	w.machine("b").connect = nil
	if answer, r := w.ask(drv, n); answer != build.Accept {
		t.Errorf("back again: %v", answer)
	} else {
		r.Cancel()
	}
}

// TestPoolChoice is about which machine is taken, and what is said when none is.
func TestPoolChoice(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a - - 2; ssh-ng://b - - 2 3 kvm; ssh-ng://c vax-vms - 1 9; ssh-ng://d - - 1 9 big big")
	drv := w.drv("x", nil, nil)
	var order []string
	for range 4 {
		_, r := w.ask(drv, &notes{})
		order = append(order, strings.TrimPrefix(r.Machine(), "ssh-ng://"))
		defer r.Cancel()
	}
	if got := strings.Join(order, ""); got != "baba" {
		t.Errorf("order %s", got)
	}
	changed := w.b.Machines(w.set).Changed()
	if answer, _ := w.ask(drv, &notes{}); answer != build.Postpone {
		t.Errorf("all busy: %v", answer)
	}
	_, r := w.ask(drv, &notes{}, "big")
	r.Cancel()
	select {
	case <-changed:
	default:
		t.Error("nobody is told that a machine is free")
	}
	n := &notes{}
	answer, _ := w.ask(drv, n, "odd")
	want := "Failed to find a machine for remote build!\nderivation: " + drv.Base() + "\nrequired (system, features): (x86_64-linux, [odd])\n" +
		"4 available machines:\n(systems, maxjobs, supportedFeatures, mandatoryFeatures)\n([x86_64-linux], 2, [], [])\n([x86_64-linux], 2, [kvm], [])\n" +
		"([vax-vms], 1, [], [])\n([x86_64-linux], 1, [big], [big])"
	if diff := cmp.Diff(want, plainText(n.messages)); answer != build.Decline || diff != "" {
		t.Errorf("%v %s", answer, diff)
	}
}

// TestPoolWilling declines what this machine can build at once rather than have it wait.
func TestPoolWilling(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a")
	if err := os.Mkdir(w.state+"/current-load", 0o777); err != nil {
		t.Fatal(err)
	}
	f, err := pathlock.OpenLockFile(w.state+"/current-load/ssh-ng:__a-0", true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if ok, err := pathlock.TryFlock(f, pathlock.Exclusive); !ok || err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		willing bool
		want    build.Answer
	}{{true, build.Decline}, {false, build.Postpone}} {
		need := build.Need{System: "x86_64-linux", DrvPath: drvPath(t), Settings: w.set, Log: &notes{}, Local: true, Willing: test.willing}
		if answer, _, err := w.b.Machines(w.set).Ask(t.Context(), need); answer != test.want || err != nil {
			t.Errorf("willing %v: %v, %v", test.willing, answer, err)
		}
	}
}

// TestPoolPrints has the log of a machine of the serve protocol arrive at the standard error of ssh.
func TestPoolPrints(t *testing.T) {
	w := newPoolWorld(t, "ssh://a")
	a := w.machine("a")
	a.during = func(context.Context, activity.Sink) error {
		a.stderr("one")
		a.late = "two"
		return nil
	}
	// Each build has all that it printed, though the way to the machine stays.
	for i := range 3 {
		n := &notes{}
		if err := w.build(w.drv(fmt.Sprint("x", i), nil, nil), n); err != nil || n.output.String() != "one\ntwo\n" {
			t.Errorf("%v: %q", err, n.output.String())
		}
	}
	if a.opened != 1 || a.rested != 3 {
		t.Errorf("%d connections that rested %d times", a.opened, a.rested)
	}
	n := &notes{full: 5}
	if err := w.build(w.drv("y", nil, nil), n); err != errFull {
		t.Errorf("error %v", err)
	}
}

// TestPoolCancel shows that nothing is left when a build is given up.
func TestPoolCancel(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a")
	ctx, cancel := context.WithCancel(t.Context())
	w.machine("a").during = func(ctx context.Context, _ activity.Sink) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	n := &notes{}
	_, r := w.ask(w.drv("x", nil, nil), n)
	if err := r.Build(ctx, build.Task{Wanted: []string{"out"}, Log: n, Output: n}); err != context.Canceled {
		t.Errorf("error %v", err)
	}
	if slot, taken, err := w.b.load.find(&Machine{URI: "ssh-ng://a", MaxJobs: 1}); slot == nil || taken != 0 || err != nil {
		t.Errorf("the slot is taken: %d, %v", taken, err)
	} else {
		slot.Close()
	}
	if len(n.messages) != 0 || w.machine("a").closed != 1 {
		t.Errorf("messages %q, %d connections closed", n.messages, w.machine("a").closed)
	}
}

// TestPoolContentAddressed registers what a machine says an output has become.
func TestPoolContentAddressed(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a")
	w.set.ExperimentalFeatures = settings.Features(settings.CADerivations)
	drv := w.drv("x", nil, nil, func(d *derivation.Derivation) {
		d.Outputs["out"] = derivation.Output{Kind: derivation.FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	})
	a := w.machine("a")
	n := &notes{}
	err := w.build(drv, n)
	if _, ok := errors.AsType[*build.RemoteFailure](err); !ok || !strings.Contains(plainText(n.messages), "has not told the path of the output 'out'") {
		t.Errorf("%v; %s", err, plainText(n.messages))
	}
	out := w.out(w.drv("some-path", nil, nil))
	a.valid[out] = string(nartest.File("floating"))
	a.result.BuiltOutputs = map[string]pathinfo.Realisation{"out": {OutPath: out}}
	if err := w.build(drv, n); err != nil {
		t.Fatal(err)
	}
	real, err := w.store.QueryRealisation(t.Context(), pathinfo.DrvOutput{DrvPath: drv, Output: "out"})
	if err != nil || real == nil || real.OutPath != out {
		t.Errorf("realisation %v, %v", real, err)
	}
	if err := w.build(drv, n); err != nil { // nothing is missing any more
		t.Error(err)
	}
}

// TestPoolImpure takes what a machine says that it has made this time, and writes nothing down.
func TestPoolImpure(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a")
	w.set.ExperimentalFeatures = settings.Features(settings.CADerivations, settings.ImpureDerivations)
	drv := w.drv("x", nil, nil, func(d *derivation.Derivation) {
		d.Outputs["out"] = derivation.Output{Kind: derivation.Impure, Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	})
	a := w.machine("a")
	n := &notes{}
	build := func() (made map[string]storepath.Path, err error) {
		made = make(map[string]storepath.Path)
		_, r := w.ask(drv, n)
		return made, r.Build(t.Context(), build.Task{Wanted: []string{"out"}, Log: n, Output: n, Made: func(output string, p storepath.Path) { made[output] = p }})
	}
	if _, err := build(); err == nil || !strings.Contains(plainText(n.messages), "has not told the path of the output 'out'") {
		t.Errorf("%v; %s", err, plainText(n.messages))
	}
	out := w.out(w.drv("some-path", nil, nil))
	a.valid[out] = string(nartest.File("impure"))
	a.result.BuiltOutputs = map[string]pathinfo.Realisation{"out": {OutPath: out}}
	made, err := build()
	if err != nil || made["out"] != out {
		t.Fatalf("%v, %v", made, err)
	}
	if valid, err := w.store.IsValid(t.Context(), out); !valid || err != nil {
		t.Errorf("valid %v, %v", valid, err)
	}
	if real, err := w.store.QueryRealisation(t.Context(), pathinfo.DrvOutput{DrvPath: drv, Output: "out"}); err != nil || real != nil {
		t.Errorf("realisation %v, %v", real, err)
	}
}

// TestPoolLies has a machine send other contents than it says.
func TestPoolLies(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a")
	drv := w.drv("x", nil, nil)
	a := w.machine("a")
	lying := &liar{a}
	w.b.sites.open = func(ctx context.Context, ref settings.StoreReference, o peer.Options) (peer.Store, error) {
		_, err := w.open(ctx, ref, o)
		return lying, err
	}
	n := &notes{}
	err := w.build(drv, n)
	if _, ok := errors.AsType[*build.RemoteFailure](err); !ok || !strings.Contains(plainText(n.messages), "hash mismatch") {
		t.Errorf("%v; %s", err, plainText(n.messages))
	}
	if valid, err := w.store.IsValid(t.Context(), w.out(drv)); valid || err != nil {
		t.Errorf("valid %v, %v", valid, err)
	}
}

type liar struct{ *far }

func (l *liar) NAR(context.Context, storepath.Path) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(string(nartest.File("a lie on my word")))), nil
}

// TestPoolBroken is about settings that cannot be understood.
func TestPoolBroken(t *testing.T) {
	w := newPoolWorld(t, "a - - x")
	n := &notes{}
	_, _, err := w.b.Machines(w.set).Ask(t.Context(), build.Need{Log: n})
	if err == nil || err.Error() != "unexpected EOF reading a line" || !strings.HasPrefix(plainText(n.messages), "error: bad machine specification") {
		t.Errorf("%v; %s", err, plainText(n.messages))
	}
	for builders, configured := range map[string]bool{"": false, " @/no/such/file ; ": false, "a": true, "a - - x": true} {
		w.set.Builders = builders
		if got := w.b.Configured(w.set); got != configured || (w.b.Machines(w.set) != nil) != configured {
			t.Errorf("%q: configured %v", builders, got)
		}
	}
}

// TestSitesBounded shows that machines of which there is nothing to know are forgotten.
func TestSitesBounded(t *testing.T) {
	w := newPoolWorld(t, "")
	for i := range 3 * mostSites {
		w.b.sites.failed(&Machine{URI: fmt.Sprint(i)})
		w.now = w.now.Add(10 * longestAvoided)
	}
	if n := len(w.b.sites.all); n > mostSites {
		t.Errorf("%d machines are known", n)
	}
}
