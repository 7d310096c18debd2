package compat

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs every script with every client, against the reference and
// against the daemon under test, and compares.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, c := range requireClients(t) {
		t.Run(c.version, func(t *testing.T) {
			for _, file := range files {
				name := strings.TrimSuffix(filepath.Base(file), ".txtar")
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					compareScript(t, c, file)
				})
			}
		})
	}
}

func compareScript(t *testing.T, c client, file string) {
	base := os.Getenv("NIXDAEMON_COMPAT_TMP")
	var bucket *bucket
	if strings.Contains(filepath.Base(file), "sandbox") {
		if err := namespaces(); err != nil {
			t.Skip(err)
		}
	}
	if strings.Contains(filepath.Base(file), "cgroup") {
		if err := cgroups(); err != nil {
			t.Skip(err)
		}
	}
	if strings.Contains(filepath.Base(file), "ssh-") {
		if err := noSSH(); err != nil {
			t.Skip(err)
		}
	}
	if strings.Contains(filepath.Base(file), "-s3") {
		if err := noBucket(); err != nil {
			t.Skip(err)
		}
		region := "us-east-1"
		if strings.Contains(filepath.Base(file), "region") {
			region = "eu-west-1"
		}
		bucket = newBucket(t, region)
	}
	if strings.HasPrefix(filepath.Base(file), "policy-") {
		if err := otherUsers(); err != nil {
			t.Skip(err)
		}
		// Builders that are other users must not run below a folder that
		// everybody may write to.
		base = "/var/lib"
	}
	s := newScratchIn(t, base)
	reference := shared.clients[referenceVersion].program("nix-daemon")
	web := newWeb(t)
	if strings.HasSuffix(file, "-slow.txtar") {
		web.mute = newMute(t)
	}
	want := &scenario{scratch: s, client: c, program: reference, web: web, bucket: bucket}
	if !t.Run("reference", want.run(file)) {
		t.Fatalf("the scenario fails with upstream's own daemon")
	}
	if want.skipped {
		t.Skip("the script says that it has nothing for this client; its reference run says why")
	}
	if os.Getenv("NIXDAEMON_BINARY") == reference.path && os.Getenv("NIXDAEMON_COMPARE") == "0" {
		return
	}
	s.empty(t)
	s.create(t)
	got := &scenario{scratch: s, client: c, program: shared.daemon, web: web, bucket: bucket}
	t.Run("daemon", func(t *testing.T) {
		got.run(file)(t)
		if !t.Failed() || len(got.transcript.steps) > 0 {
			got.transcript.compare(t, &want.transcript)
		}
	})
}

// TestScriptsNotice has the scripts look at a daemon that is known to answer
// differently: upstream's own of an earlier release.
func TestScriptsNotice(t *testing.T) {
	clients := requireClients(t, "2.26.3", referenceVersion)
	old, newest := clients[0], clients[1]
	const file = "testdata/notice.txtar"
	s := newScratch(t)
	want := &scenario{scratch: s, client: newest, program: newest.program("nix-daemon")}
	if !t.Run("reference", want.run(file)) {
		return
	}
	s.empty(t)
	s.create(t)
	got := &scenario{scratch: s, client: newest, program: old.program("nix-daemon")}
	if !t.Run("old", got.run(file)) {
		return
	}
	if len(want.transcript.steps) == 0 {
		t.Skip("its parts are left out by -run")
	}
	var failures failureCounter
	got.transcript.compare(&failures, &want.transcript)
	if failures.n == 0 {
		t.Error("the old daemon's answers pass for the new one's")
	}
}

// scenario is one run of a script against one daemon.
type scenario struct {
	scratch scratch
	client  client
	program program // the daemon's

	web        *web
	bucket     *bucket  // nil unless the script is about S3
	daemon     *daemon  // nil while stopped
	second     *daemon  // nil unless a script asked for it
	machine    *machine // the same
	transcript transcript
	how        comparison
	damaged    bool // the script broke the store on purpose
	skipped    bool
	lastExit   int
	trying     bool     // the exit status matters only in that it is the same
	captured   []string // options of env(1) that unset what was captured
}

// run returns a test that runs the script and notes what it showed.
func (sc *scenario) run(file string) func(*testing.T) {
	return func(t *testing.T) {
		sc.how = compareAll
		defer func() { sc.skipped = t.Skipped() }()
		testscript.RunT(inline{t}, testscript.Params{
			Files:       []string{file},
			WorkdirRoot: sc.scratch.root,
			Setup:       func(env *testscript.Env) error { return sc.setup(t, env) },
			Condition:   sc.client.matches,
			Cmds:        sc.commands(t),
		})
		sc.finish(t)
	}
}

// setup gives the script its environment and a running daemon. The files
// nix.conf and client.conf of the script are added to the usual settings.
func (sc *scenario) setup(t *testing.T, env *testscript.Env) error {
	more, err := os.ReadFile(filepath.Join(env.WorkDir, "nix.conf"))
	if ignoreMissing(err) != nil {
		return err
	}
	// Upstream's newest daemon, when it gives up its hook for remote builds,
	// sometimes fails instead. Older ones cannot do without.
	sc.scratch.configure(t, "build-hook =\n"+string(more))
	sc.scratch.configureClient(t, sc.client)
	env.Vars = append(env.Vars, sc.scratch.clientEnv(sc.client)...)
	env.Setenv("ROOT", sc.scratch.root)
	if sc.web != nil {
		env.Setenv("HTTP", sc.web.url())
		env.Setenv("MUTE", sc.web.mute)
	}
	if sc.bucket != nil {
		env.Setenv("S3", sc.bucket.url())
		env.Setenv("BUCKET", sc.bucket.dir)
		env.Setenv("ENDPOINT", sc.bucket.address)
		env.Setenv("VIRTUAL", sc.bucket.virtual())
	}
	env.Setenv("STORE", sc.scratch.path("store"))
	env.Setenv("STATE", sc.scratch.path("var/nix"))
	env.Setenv("LOGS", sc.scratch.path("var/log"))
	env.Setenv("PROGRAM", sc.program.path)
	env.Setenv("REFERENCE", shared.clients[referenceVersion].bin)
	if err := os.Chmod(env.WorkDir, 0o777); err != nil {
		return err
	}
	mk, err := os.ReadFile("testdata/mk.nix")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(env.WorkDir, "mk.nix"), mk, 0o644); err != nil {
		return err
	}
	sc.daemon = startDaemon(t, sc.scratch, sc.program, daemonOptions{})
	return nil
}

// finish stops the daemon and notes what it left behind.
func (sc *scenario) finish(t *testing.T) {
	if t.Failed() {
		return
	}
	for _, d := range []*daemon{sc.second, sc.daemon} {
		if d == nil {
			continue
		}
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	}
	if sc.machine != nil {
		sc.machine.stop()
	}
	if err := sc.scratch.awaitQuiet(); err != nil {
		t.Error(err)
	}
	sc.transcript.state = sc.scratch.state(t)
	if !sc.damaged {
		sc.scratch.verify(t, shared.clients[referenceVersion])
	}
}

// inline runs a script within the test that it is given.
type inline struct{ *testing.T }

func (t inline) Run(_ string, f func(testscript.T)) { f(t) }
func (t inline) Parallel()                          {}
func (t inline) Verbose() bool {
	return testing.Verbose() && os.Getenv("NIXDAEMON_COMPAT_VERBOSE") == "1"
}
