package build

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// world is a real store with a real scheduler.
type world struct {
	testing.TB
	ctx   context.Context
	root  string
	store *localstore.Store
	sched *Scheduler
	// options are the scheduler's.
	options Options
	// sess is whom requests are for: see change.
	sess *session.Session
	log  *recorder

	// step, if not nil, may end a change of the store, as if the process had died.
	step func(name string) error
}

func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, ctx: context.Background(), root: root, log: &recorder{}}
	store, err := localstore.Open(context.Background(), localstore.Options{
		StoreDir: storepath.Dir(root + "/store"), StateDir: root + "/var", LogDir: root + "/log", UseWAL: true,
		Features: derivation.AllFeatures(), CADerivations: true,
		Step: func(name string) error {
			if w.step == nil {
				return nil
			}
			return w.step(name)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	launcher, err := sandbox.NewLauncher()
	if err != nil {
		t.Fatal(err)
	}
	w.store = store
	o := Options{Store: store, Launcher: launcher, IDs: new(activity.IDs), MaxTotalJobs: 2, Log: zerolog.Nop(), idleTime: time.Hour}
	for _, f := range change {
		f(&o)
	}
	w.sched, w.options = New(o), o
	roots := store.NewTempRoots()
	t.Cleanup(func() {
		if err := w.sched.Close(context.Background()); err != nil {
			t.Error(err)
		}
		launcher.Close()
		roots.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		makeDeletable(root)
	})
	w.sess = &session.Session{User: "alice", Client: 1, Trusted: true, Settings: testSettings(), Log: w.log, Roots: roots}
	return w
}

// makeDeletable lets an unprivileged test's directory be cleaned up.
func makeDeletable(root string) {
	filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
}

func testSettings() *settings.Settings {
	s := settings.Defaults(settings.Environment{System: "x86_64-linux", CPUs: 2})
	s.Sandbox = settings.SandboxFalse
	s.MaxJobs = 2
	s.Substitute = false
	s.BuildUsersGroup = ""
	s.FilterSyscalls = false
	s.ExperimentalFeatures = settings.Features(settings.NixCommand)
	return s
}

// change makes the session another one. Requests keep the one that they were made for, which nobody changes.
func (w *world) change(change func(*session.Session)) {
	s := *w.sess
	change(&s)
	w.sess = &s
}

// set changes the session's settings, for later requests.
func (w *world) set(change func(*settings.Settings)) {
	w.change(func(s *session.Session) {
		s.Settings = s.Settings.Clone()
		change(s.Settings)
	})
}

// request begins to build derivations for the session as it is now; the result comes later.
func (w *world) request(ctx context.Context, drvs ...storepath.Path) <-chan error {
	return ask(ctx, w.sched, w.sess, drvs...)
}

func ask(ctx context.Context, sched *Scheduler, sess *session.Session, drvs ...storepath.Path) <-chan error {
	done := make(chan error, 1)
	var paths []derivation.DerivedPath
	for _, drv := range drvs {
		paths = append(paths, built(drv))
	}
	go func() { done <- sched.BuildPaths(ctx, sess, paths, derivation.BuildNormal) }()
	return done
}

// begin is request for one derivation, of which more than an error is of interest.
func (w *world) begin(drv storepath.Path, mode derivation.BuildMode) <-chan derivation.BuildResult {
	done, sess := make(chan derivation.BuildResult, 1), w.sess
	go func() {
		results, err := w.sched.BuildPathsWithResults(w.ctx, sess, []derivation.DerivedPath{built(drv)}, mode)
		if err != nil || len(results) != 1 {
			w.Errorf("build %s: %d results, %v", drv, len(results), err)
			results = append(results, derivation.KeyedBuildResult{})
		}
		done <- results[0].BuildResult
	}()
	return done
}

// drv makes a derivation that runs a shell script.
func (w *world) drv(name, script string, change ...func(*derivation.Derivation)) storepath.Path {
	w.Helper()
	d := &derivation.Derivation{
		BasicDerivation: derivation.BasicDerivation{
			Name: name, Platform: "x86_64-linux", Builder: "/bin/sh", Args: []string{"-c", script},
			Env:     map[string]string{"name": name, "out": "", "PATH": "/bin:/usr/bin"},
			Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}},
		},
		InputDrvs: map[storepath.Path]*derivation.InputOutputs{},
	}
	for _, f := range change {
		f(d)
	}
	return w.writeDrv(d)
}

func (w *world) writeDrv(d *derivation.Derivation) storepath.Path {
	w.Helper()
	hasher := &derivation.Hasher{Dir: w.store.Dir(), Load: w.store.ReadDerivation, Memo: w.sched.memo}
	if err := hasher.FillOutputPaths(w.ctx, d); err != nil {
		w.Fatal(err)
	}
	p, text, err := drvStorePath(w.store.Dir(), d)
	if err != nil {
		w.Fatal(err)
	}
	refs := slices.Clone(d.InputSrcs)
	for input := range d.InputDrvs {
		refs = append(refs, input)
	}
	info, err := w.store.AddDump(w.ctx, localstore.DumpSpec{Name: d.Name + ".drv", Method: storepath.MethodText,
		Algo: nixhash.SHA256, References: storepath.SortUnique(refs)}, strings.NewReader(text), localstore.AddOptions{})
	if err != nil {
		w.Fatal(err)
	}
	if info.Path != p {
		w.Fatalf("derivation stored at %s, want %s", info.Path, p)
	}
	return p
}

// source adds a file to the store.
func (w *world) source(name, text string) storepath.Path {
	w.Helper()
	info, err := w.store.AddDump(w.ctx, localstore.DumpSpec{Name: name, Method: storepath.MethodText, Algo: nixhash.SHA256},
		strings.NewReader(text), localstore.AddOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return info.Path
}

func (w *world) print(p storepath.Path) string { return w.store.Dir().Print(p) }

// out is the path of an output that is known beforehand.
func (w *world) out(drv storepath.Path, name string) storepath.Path {
	w.Helper()
	outputs, err := w.sched.OutputMap(w.ctx, drv)
	if err != nil {
		w.Fatal(err)
	}
	return outputs[name]
}

func (w *world) read(p storepath.Path, sub ...string) string {
	w.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{w.store.RealPath(p)}, sub...)...))
	if err != nil {
		w.Fatal(err)
	}
	return string(text)
}

func built(drv storepath.Path, outputs ...string) derivation.DerivedPath {
	spec := derivation.OutputsSpec{Names: outputs}
	if len(outputs) == 0 {
		spec = derivation.OutputsSpec{All: true}
	}
	return derivation.DerivedPath{Drv: &derivation.SingleDerivedPath{Path: drv}, Outputs: spec}
}

// build builds a derivation and gives its result.
func (w *world) build(drv storepath.Path) derivation.BuildResult {
	w.Helper()
	return w.buildMode(drv, derivation.BuildNormal)
}

func (w *world) buildMode(drv storepath.Path, mode derivation.BuildMode) derivation.BuildResult {
	w.Helper()
	results, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, mode)
	if err != nil {
		w.Fatalf("build %s: %v", drv, err)
	}
	if len(results) != 1 {
		w.Fatalf("build %s: %d results, want 1", drv, len(results))
	}
	return results[0].BuildResult
}

// mustBuild builds and gives the path of the output "out".
func (w *world) mustBuild(drv storepath.Path) storepath.Path {
	w.Helper()
	res := w.build(drv)
	if !res.Status.Success() {
		w.Fatalf("build %s: status %d: %s", drv, res.Status, res.ErrorMsg)
	}
	return res.BuiltOutputs["out"].OutPath
}

// mustFail builds and wants a failure with that status; it gives its text without colours.
func (w *world) mustFail(drv storepath.Path, status derivation.BuildStatus) string {
	w.Helper()
	res := w.build(drv)
	if res.Status != status {
		w.Fatalf("build %s: status %d (%s), want %d", drv, res.Status, res.ErrorMsg, status)
	}
	return withoutColours(res.ErrorMsg)
}

func withoutColours(s string) string {
	return strings.NewReplacer(ansiNormal, "", ansiBold, "", ansiRed, "", ansiMagenta, "").Replace(s)
}

// until waits for what nothing tells of, which comes about however busy the machine is.
func (w *world) until(cond func() bool) {
	w.Helper()
	for deadline := time.Now().Add(4 * time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatal("does not come about")
		}
	}
}

// leftBuildDirs are the build directories that remain.
func (w *world) leftBuildDirs() []string {
	entries, _ := os.ReadDir(w.root + "/var/builds")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// recorder is a log that remembers.
type recorder struct {
	mu       sync.Mutex
	messages []string
	starts   []started
	stops    []activity.ID
	results  []recordedResult
}

type recordedResult struct {
	id     activity.ID
	kind   activity.ResultType
	fields []activity.Field
}

func (r *recorder) Message(_ activity.Level, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, text)
}

func (r *recorder) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starts = append(r.starts, started{id, level, kind, text, fields, parent})
}

func (r *recorder) Stop(id activity.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stops = append(r.stops, id)
}

func (r *recorder) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, recordedResult{id, kind, fields})
}

// lines are the log lines of builders.
func (r *recorder) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for _, res := range r.results {
		if res.kind == activity.BuildLogLine {
			lines = append(lines, res.fields[0].Text)
		}
	}
	return lines
}

// started are the texts of activities of a kind.
func (r *recorder) activities(kind activity.Type) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var texts []string
	for _, s := range r.starts {
		if s.kind == kind {
			texts = append(texts, s.text)
		}
	}
	return texts
}

// unstopped counts the activities that have not stopped.
func (r *recorder) unstopped() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.starts) - len(r.stops)
}

func (r *recorder) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.messages, "\n")
}
