package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// TestMain lets this program be a builder: of nestedWorld's derivations.
func TestMain(m *testing.M) {
	if name := os.Getenv("nestedBuilder"); name != "" {
		os.Exit(nestedBuilder(name))
	}
	os.Exit(m.Run())
}

// nestedWorld is all of a daemon but its socket.
type nestedWorld struct {
	*testing.T
	ctx           context.Context
	local         *local
	sess          *session.Session
	log           nestedLog
	input, secret storepath.Path
}

// nestedLog keeps what builders say.
type nestedLog struct {
	activity.Discard
	mu    sync.Mutex
	lines []string
}

func (l *nestedLog) Result(_ activity.ID, kind activity.ResultType, fields []activity.Field) {
	if kind == activity.BuildLogLine {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, fields[0].Text)
	}
}

func newNestedWorld(t *testing.T, change ...func(*settings.Settings)) *nestedWorld {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := settings.Defaults(settings.Environment{System: "x86_64-linux", CPUs: 1})
	s.Sandbox, s.BuildUsersGroup, s.Substitute, s.MaxJobs, s.FilterSyscalls = settings.SandboxFalse, "", false, 1, false
	s.MaxTotalJobs = 1
	s.ExperimentalFeatures = settings.Features(settings.RecursiveNix, settings.CADerivations, settings.DynamicDerivations)
	for _, f := range change {
		f(s)
	}
	w := &nestedWorld{T: t, ctx: context.Background()}
	if w.local, err = newLocal(w.ctx, &config.Config{Settings: s, Store: config.StoreConfig{
		StoreDir: root + "/store", RealDir: root + "/store", StateDir: root + "/var", LogDir: root + "/log", RequireSigs: true,
	}}, 0, zerolog.Nop(), new(observers), nil); err != nil {
		t.Fatal(err)
	}
	roots := w.local.store.NewTempRoots()
	t.Cleanup(func() {
		roots.Close()
		if err := w.local.close(); err != nil {
			t.Error(err)
		}
		filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	w.sess = &session.Session{User: "alice", Client: 1, Settings: s, Log: &w.log, Roots: roots}
	w.input, w.secret = w.text("input", "an input"), w.text("secret", "not for builders")
	return w
}

func (w *nestedWorld) text(name, text string, refs ...storepath.Path) storepath.Path {
	w.Helper()
	info, err := w.local.store.AddDump(w.ctx, localstore.DumpSpec{Name: name, Method: storepath.MethodText, Algo: nixhash.SHA256,
		References: storepath.SortUnique(refs)}, strings.NewReader(text), localstore.AddOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return info.Path
}

// drv is a derivation that this program builds as nestedBuilder(name).
func (w *nestedWorld) drv(name, features string, change ...func(*derivation.Derivation)) storepath.Path {
	w.Helper()
	self, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	dir := w.local.store.Dir()
	d := &derivation.Derivation{
		BasicDerivation: derivation.BasicDerivation{
			Name: name, Platform: "x86_64-linux", Builder: self, InputSrcs: []storepath.Path{w.input},
			Env: map[string]string{"out": "", "nestedBuilder": name, "requiredSystemFeatures": features, "input": dir.Print(w.input),
				"secret": dir.Print(w.secret)}, // a name without meaning to the daemon
			Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}},
		},
		InputDrvs: map[storepath.Path]*derivation.InputOutputs{},
	}
	for _, f := range change {
		f(d)
	}
	hasher := &derivation.Hasher{Dir: dir, Load: w.local.store.ReadDerivation, Memo: derivation.NewMemo(16)}
	if err := hasher.FillOutputPaths(w.ctx, d); err != nil {
		w.Fatal(err)
	}
	text, err := d.ATerm(dir)
	if err != nil {
		w.Fatal(err)
	}
	return w.text(name+".drv", text, d.InputSrcs...)
}

func floating(method storepath.Method) func(*derivation.Derivation) {
	return func(d *derivation.Derivation) {
		d.Outputs["out"] = derivation.Output{Kind: derivation.FloatingCA, Method: method, Algo: nixhash.SHA256}
		d.Env["out"] = derivation.HashPlaceholder("out")
		if strings.Contains(d.Env["requiredSystemFeatures"], derivation.FeatureBuilderRPC) {
			delete(d.Env, "out")
		}
	}
}

func (w *nestedWorld) build(drv storepath.Path) derivation.BuildResult {
	w.Helper()
	return w.buildMode(drv, derivation.BuildNormal)
}

func (w *nestedWorld) buildMode(drv storepath.Path, mode derivation.BuildMode) derivation.BuildResult {
	w.Helper()
	results, err := w.local.builder.BuildPathsWithResults(w.ctx, w.sess, outputs(drv), mode)
	if err != nil || len(results) != 1 {
		w.Fatalf("build %s: %v, %v", drv, results, err)
	}
	return results[0].BuildResult
}

func (w *nestedWorld) mustBuild(drv storepath.Path) storepath.Path {
	w.Helper()
	res := w.build(drv)
	if !res.Status.Success() {
		w.Fatalf("build %s: status %d: %s", drv, res.Status, res.ErrorMsg)
	}
	return res.BuiltOutputs["out"].OutPath
}

// quiet waits until the builds have left no goroutine behind.
func (w *nestedWorld) quiet(before int) {
	w.Helper()
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
		runtime.GC()
	}
	stacks := make([]byte, 1<<20)
	w.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
}

// inWorlds runs a test with builders that see the machine, and with isolated ones.
func inWorlds(t *testing.T, test func(t *testing.T, w *nestedWorld)) {
	t.Run("plain", func(t *testing.T) { test(t, newNestedWorld(t)) })
	t.Run("sandbox", func(t *testing.T) {
		l, err := sandbox.NewLauncher()
		if err != nil {
			t.Fatal(err)
		}
		support := l.Support()
		l.Close()
		if support.Namespaces != nil {
			t.Skip("no sandbox here: ", support.Namespaces)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		test(t, newNestedWorld(t, func(s *settings.Settings) {
			s.Sandbox = settings.SandboxTrue
			for _, p := range []string{self, "/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64"} {
				s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: p, Source: p, Optional: true})
			}
		}))
	})
}

// TestNestedBuild has a builder add something and have something built, with one slot for all.
func TestNestedBuild(t *testing.T) {
	inWorlds(t, func(t *testing.T, w *nestedWorld) {
		w.mustBuild(w.drv("plain", "")) // whatever starts once has started
		before := runtime.NumGoroutine()
		out := w.mustBuild(w.drv("honest", "recursive-nix"))
		w.quiet(before)
		info, err := w.local.store.PathInfo(w.ctx, out)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, ref := range info.References {
			names = append(names, ref.Name())
		}
		slices.Sort(names)
		if want := []string{"added", "inner"}; !slices.Equal(names, want) {
			t.Errorf("output refers to %q, want %q", names, want)
		}
		if !slices.Contains(w.log.lines, "inner says hello") {
			t.Errorf("log is %q", w.log.lines)
		}
		if left, err := os.ReadDir(w.local.store.StateDir() + "/builds"); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}

// TestNestedSubmit has a builder submit its output instead of making it.
func TestNestedSubmit(t *testing.T) {
	w := newNestedWorld(t)
	for _, tt := range []struct{ name, want string }{
		{"submit", ""},
		{"submit-nothing", "failed to submit output path for"},
		{"submit-twice", "Attempted to submit duplicate output"},
		{"submit-unknown", "submitted unknown output"},
		{"submit-misnamed", "was named"},
		{"submit-text", "was hashed with method"},
		{"submit-secret", "because path is unknown"},
	} {
		drv := w.drv(tt.name, derivation.FeatureBuilderRPC, floating(storepath.MethodNAR))
		w.log.lines = nil
		res := w.build(drv)
		said := strings.Join(w.log.lines, "\n") + res.ErrorMsg
		if tt.want == "" != res.Status.Success() || !strings.Contains(strings.NewReplacer("\x1b[35;1m", "", "\x1b[0m", "").Replace(said), tt.want) {
			t.Errorf("%s: status %d, said %s", tt.name, res.Status, said)
			continue
		}
		if tt.want == "" {
			info, err := w.local.store.PathInfo(w.ctx, res.BuiltOutputs["out"].OutPath)
			if err != nil || !slices.Equal(info.References, []storepath.Path{w.input}) {
				t.Errorf("submitted %+v, %v", info, err)
			}
			if again := w.build(drv); again.Status != derivation.StatusAlreadyValid {
				t.Errorf("built again: status %d", again.Status)
			}
		}
	}
	// Only what is content-addressed can be submitted.
	d := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{Name: "x", Platform: "x86_64-linux", Builder: "/bin/sh",
		Env:     map[string]string{"requiredSystemFeatures": derivation.FeatureBuilderRPC},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}}}}
	err := (&derivation.Hasher{Dir: w.local.store.Dir(), Load: w.local.store.ReadDerivation}).FillOutputPaths(w.ctx, d)
	if err == nil || !strings.Contains(err.Error(), "which may only be used with content-addressing derivations") {
		t.Errorf("got %v", err)
	}
}

// TestNestedSubmitChecked builds again what submits: the same each time, and something else.
func TestNestedSubmitChecked(t *testing.T) {
	w := newNestedWorld(t)
	for name, want := range map[string]derivation.BuildStatus{"submit": derivation.StatusBuilt, "submit-random": derivation.StatusNotDeterministic} {
		drv := w.drv(name, derivation.FeatureBuilderRPC, floating(storepath.MethodNAR))
		first := w.mustBuild(drv)
		if res := w.buildMode(drv, derivation.BuildCheck); res.Status != want {
			t.Errorf("%s: status %d: %s", name, res.Status, res.ErrorMsg)
		}
		if again := w.mustBuild(drv); again != first {
			t.Errorf("%s: output was %s, is %s", name, first, again)
		}
	}
}

// TestNestedHostile runs a builder that tries what it may not do, then leaves as many connections open as it can, some in
// the middle of a request, with a process to hold them. The build must end, and nothing be left.
func TestNestedHostile(t *testing.T) {
	inWorlds(t, func(t *testing.T, w *nestedWorld) {
		w.mustBuild(w.drv("plain", ""))
		before := runtime.NumGoroutine()
		out := w.mustBuild(w.drv("hostile", "recursive-nix", func(d *derivation.Derivation) {
			d.Env["isolated"] = fmt.Sprint(w.sess.Settings.Sandbox == settings.SandboxTrue)
		}))
		w.quiet(before)
		text, err := os.ReadFile(w.local.store.RealPath(out))
		if err != nil || string(text) != "nothing worked" {
			t.Errorf("%s, %v; log %q", text, err, w.log.lines)
		}
		if valid, err := w.local.store.IsValid(w.ctx, w.secret); err != nil || !valid {
			t.Errorf("secret: %v, %v", valid, err)
		}
	})
}

// TestNestedGivenUp cancels a build whose builder waits for another.
func TestNestedGivenUp(t *testing.T) {
	w := newNestedWorld(t)
	w.mustBuild(w.drv("plain", ""))
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(w.ctx)
	fifo := filepath.Join(t.TempDir(), "fifo")
	mkfifo(t, fifo)
	drv := w.drv("waits", "recursive-nix", func(d *derivation.Derivation) { d.Env["fifo"] = fifo })
	done := make(chan error, 1)
	go func() {
		_, err := w.local.builder.BuildPathsWithResults(ctx, w.sess, outputs(drv), derivation.BuildNormal)
		done <- err
	}()
	if _, err := os.ReadFile(fifo); err != nil { // the inner builder has begun
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("a build that was given up succeeded")
	}
	w.quiet(before)
}

// TestNestedKept collects garbage while a builder holds nothing but the name of what it has added, its connection closed.
func TestNestedKept(t *testing.T) {
	w := newNestedWorld(t)
	added, goOn := filepath.Join(t.TempDir(), "added"), filepath.Join(t.TempDir(), "goOn")
	mkfifo(t, added)
	mkfifo(t, goOn)
	drv := w.drv("kept", "recursive-nix", func(d *derivation.Derivation) { d.Env["added"], d.Env["goOn"] = added, goOn })
	garbage := w.text("garbage", "nobody wants this")
	done := make(chan derivation.BuildResult, 1)
	go func() { done <- w.build(drv) }()
	if _, err := os.ReadFile(added); err != nil {
		t.Fatal(err)
	}
	res, err := w.local.collector.Collect(w.ctx, w.sess, protocol.GCRequest{Action: protocol.GCDeleteDead, WholeStore: true, MaxFreed: 1 << 60})
	if err != nil || !slices.Contains(res.Paths, w.local.store.Dir().Print(garbage)) {
		t.Errorf("collected %v, %v", res, err)
	}
	if err := os.WriteFile(goOn, []byte("go on"), 0); err != nil {
		t.Fatal(err)
	}
	built := <-done
	if !built.Status.Success() {
		t.Fatalf("status %d: %s", built.Status, built.ErrorMsg)
	}
	info, err := w.local.store.PathInfo(w.ctx, built.BuiltOutputs["out"].OutPath)
	if err != nil || len(info.References) != 1 {
		t.Errorf("output is %+v, %v", info, err)
	}
}

// TestNestedSelf: what waits for itself is told so.
func TestNestedSelf(t *testing.T) {
	w := newNestedWorld(t)
	w.mustBuild(w.drv("self", "recursive-nix"))
}

// nestedBuilder is what runs inside of the builds. It gives the exit status.
func nestedBuilder(name string) int {
	if err := nestedBuilders[name](); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

var nestedBuilders = map[string]func() error{
	"plain":  func() error { return os.WriteFile(os.Getenv("out"), []byte("plain"), 0o644) },
	"honest": honestBuilder, "hostile": hostileBuilder, "waits": waitingBuilder, "self": selfBuilder,
	"kept":            keptBuilder,
	"submit":          func() error { return submitter("submit", "fixed:r:sha256", "out") },
	"submit-random":   func() error { return submitter("submit-random", "fixed:r:sha256", "out") },
	"submit-nothing":  func() error { return submitter("submit-nothing", "fixed:r:sha256") },
	"submit-twice":    func() error { return submitter("submit-twice", "fixed:r:sha256", "out", "out") },
	"submit-unknown":  func() error { return submitter("submit-unknown", "fixed:r:sha256", "out", "doc") },
	"submit-misnamed": func() error { return submitter("another-name", "fixed:r:sha256", "out") },
	"submit-text":     func() error { return submitter("submit-text", "text:sha256", "out") },
	"submit-secret": func() error {
		c, dir := nestedClient()
		p, err := dir.Parse(os.Getenv("secret"))
		if err != nil {
			return err
		}
		return c.SubmitOutput(context.Background(), protocol.SubmitOutputRequest{Path: &derivation.SingleDerivedPath{Path: p}, Output: "out"})
	},
}

func nestedClient() (*client.Client, storepath.Dir) {
	dir := storepath.Dir(os.Getenv("NIX_STORE"))
	socket := strings.TrimPrefix(os.Getenv("NIX_REMOTE"), "unix://")
	return client.New(client.Options{Dial: client.Unix(socket), Dir: dir, Features: derivation.AllFeatures()}), dir
}

// innerDrv adds a derivation that a shell builds.
func innerDrv(ctx context.Context, c *client.Client, name, script string, refs ...storepath.Path) (storepath.Path, error) {
	d := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{Name: name, Platform: "x86_64-linux", Builder: "/bin/sh",
		Args: []string{"-c", script}, Env: map[string]string{"out": ""}, InputSrcs: refs,
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}}}}
	if err := (&derivation.Hasher{Dir: c.Dir()}).FillOutputPaths(ctx, d); err != nil {
		return storepath.Path{}, err
	}
	text, err := d.ATerm(c.Dir())
	if err != nil {
		return storepath.Path{}, err
	}
	return c.AddText(ctx, protocol.AddTextRequest{Name: name + ".drv", Text: text, References: refs})
}

func outputs(drv storepath.Path) []derivation.DerivedPath {
	return []derivation.DerivedPath{{Drv: &derivation.SingleDerivedPath{Path: drv}, Outputs: derivation.OutputsSpec{All: true}}}
}

func honestBuilder() error {
	ctx := context.Background()
	c, dir := nestedClient()
	defer c.Close()
	if info, err := os.Lstat(strings.TrimPrefix(os.Getenv("NIX_REMOTE"), "unix://")); err != nil || info.Mode().Perm() != 0o600 {
		return fmt.Errorf("socket: %v, %w", info.Mode(), err)
	}
	added, err := c.AddText(ctx, protocol.AddTextRequest{Name: "added", Text: "added"})
	if err != nil {
		return err
	}
	if text, err := os.ReadFile(dir.Print(added)); err != nil || string(text) != "added" {
		return fmt.Errorf("what was added is %q, %w", text, err)
	}
	drv, err := innerDrv(ctx, c, "inner", "echo inner says hello; read line < "+dir.Print(added)+"; echo $line > $out", added)
	if err != nil {
		return err
	}
	results, err := c.BuildPathsWithResults(ctx, outputs(drv), derivation.BuildNormal)
	if err != nil || !results[0].Status.Success() {
		return fmt.Errorf("inner build: %+v, %w", results, err)
	}
	inner := dir.Print(results[0].BuiltOutputs["out"].OutPath)
	text, err := os.ReadFile(inner)
	if err != nil || string(text) != "added\n" {
		return fmt.Errorf("inner output is %q, %w", text, err)
	}
	return os.WriteFile(os.Getenv("out"), []byte(dir.Print(added)+inner), 0o644)
}

func submitter(name, method string, names ...string) error {
	ctx := context.Background()
	c, _ := nestedClient()
	defer c.Close()
	if _, told := os.LookupEnv("out"); told {
		return fmt.Errorf("there is a variable for the output")
	}
	text := os.Getenv("input")
	if name == "submit-random" {
		text += fmt.Sprint(os.Getpid(), time.Now().UnixNano())
	}
	data := "\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1\x00\x00\x00" + narString("(") + narString("type") + narString("regular") +
		narString("contents") + narString(text) + narString(")")
	if strings.HasPrefix(method, "text") {
		data = text
	}
	info, err := c.AddToStoreScanning(ctx, protocol.AddToStoreScanningRequest{Name: name, MethodAlgo: method}, strings.NewReader(data))
	if err != nil {
		return err
	}
	for _, output := range names {
		if err := c.SubmitOutput(ctx, protocol.SubmitOutputRequest{Path: &derivation.SingleDerivedPath{Path: info.Path}, Output: output}); err != nil {
			return err
		}
	}
	return nil
}

// narString is a string as archives have it.
func narString(s string) string {
	pad := strings.Repeat("\x00", (8-len(s)%8)%8)
	return string([]byte{byte(len(s)), byte(len(s) >> 8), 0, 0, 0, 0, 0, 0}) + s + pad
}

func hostileBuilder() error {
	ctx := context.Background()
	c, dir := nestedClient()
	secret, err := dir.Parse(os.Getenv("secret"))
	if err != nil {
		return err
	}
	drv, err := innerDrv(ctx, c, "thief", "cat "+dir.Print(secret)+" > $out")
	if err != nil {
		return err
	}
	tries := map[string]func() error{
		"see": func() error {
			if info, err := c.PathInfo(ctx, secret); err != nil || info == nil {
				return errors.New("is not seen")
			}
			return nil
		},
		"dump": func() error { return c.Dump(ctx, secret, io.Discard) },
		"build": func() error {
			return c.BuildPaths(ctx, []derivation.DerivedPath{{Path: secret}}, derivation.BuildNormal)
		},
		"repair": func() error { return c.BuildPaths(ctx, outputs(drv), derivation.BuildRepair) },
		"check":  func() error { return c.BuildPaths(ctx, outputs(drv), derivation.BuildCheck) },
		"sign":   func() error { return c.AddSignatures(ctx, secret, nil) },
		"root":   func() error { _, err := c.AddPermRoot(ctx, secret, "/tmp/root"); return err },
		"submit": func() error {
			return c.SubmitOutput(ctx, protocol.SubmitOutputRequest{Path: &derivation.SingleDerivedPath{Path: secret}, Output: "out"})
		},
	}
	if os.Getenv("isolated") == "true" {
		tries["read within"] = func() error { return c.BuildPaths(ctx, outputs(drv), derivation.BuildNormal) }
		tries["read"] = func() error { _, err := os.ReadFile(dir.Print(secret)); return err }
	}
	for what, try := range tries {
		if try() == nil {
			return fmt.Errorf("%s worked", what)
		}
	}
	if _, err := c.CollectGarbage(ctx, protocol.GCRequest{Action: protocol.GCDeleteSpecific, Paths: []storepath.Path{secret}, MaxFreed: 1 << 60}); err != nil {
		return err
	}
	socket := strings.TrimPrefix(os.Getenv("NIX_REMOTE"), "unix://")
	for i := range 200 {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			break // as many as are waited for
		}
		if i%2 == 0 {
			conn.Write([]byte("cxin\x00\x00\x00\x00"))
		}
	}
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{Sys: newSession()})
	if err != nil {
		return err
	}
	p.Release()
	return os.WriteFile(os.Getenv("out"), []byte("nothing worked"), 0o644)
}

func waitingBuilder() error {
	ctx := context.Background()
	c, _ := nestedClient()
	drv, err := innerDrv(ctx, c, "begun", "echo begun > "+os.Getenv("fifo")+"; while :; do /bin/sleep 1; done")
	if err != nil {
		return err
	}
	return c.BuildPaths(ctx, outputs(drv), derivation.BuildNormal)
}

func keptBuilder() error {
	c, dir := nestedClient()
	p, err := c.AddText(context.Background(), protocol.AddTextRequest{Name: "added", Text: "added"})
	if err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(os.Getenv("added"), []byte("added"), 0); err != nil {
		return err
	}
	if _, err := os.ReadFile(os.Getenv("goOn")); err != nil {
		return err
	}
	if text, err := os.ReadFile(dir.Print(p)); err != nil || string(text) != "added" {
		return fmt.Errorf("what was added is %q, %w", text, err)
	}
	return os.WriteFile(os.Getenv("out"), []byte(dir.Print(p)), 0o644)
}

// selfBuilder asks for its own derivation, which it can write down since that says all that it knows of itself.
func selfBuilder() error {
	ctx := context.Background()
	c, dir := nestedClient()
	defer c.Close()
	input, err := dir.Parse(os.Getenv("input"))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	d := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{
		Name: "self", Platform: "x86_64-linux", Builder: self, InputSrcs: []storepath.Path{input},
		Env: map[string]string{"out": "", "nestedBuilder": "self", "requiredSystemFeatures": "recursive-nix",
			"input": os.Getenv("input"), "secret": os.Getenv("secret")},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}}}}
	if err := (&derivation.Hasher{Dir: dir}).FillOutputPaths(ctx, d); err != nil {
		return err
	}
	text, err := d.ATerm(dir)
	if err != nil {
		return err
	}
	drv, err := c.AddText(ctx, protocol.AddTextRequest{Name: "self.drv", Text: text, References: []storepath.Path{input}})
	if err != nil {
		return err
	}
	err = c.BuildPaths(ctx, outputs(drv), derivation.BuildNormal)
	if err == nil || !strings.Contains(err.Error(), "is being built by the builder that asks for it") {
		return fmt.Errorf("asking for oneself: %w", err)
	}
	return os.WriteFile(os.Getenv("out"), []byte("told so"), 0o644)
}
