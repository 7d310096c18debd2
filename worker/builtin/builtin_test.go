package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/worker/builtin/builtinjob"
)

// TestMain makes the test's own binary what the daemon's is: one that can be a builtin.
func TestMain(m *testing.M) {
	if Invoked(os.Args) {
		coverage := os.Getenv("GOCOVERDIR")
		status := Main(os.Args)
		os.Setenv("GOCOVERDIR", coverage) // Main has cleared the environment
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// result is what came of a job.
type result struct {
	exit   int
	log    string // without "@nix" lines
	events []event
	out    string // the output's path
	pauses []time.Duration
}

type event struct {
	Action string `json:"action"`
	Level  uint64 `json:"level"`
	Msg    string `json:"msg"`
	Text   string `json:"text"`
	Type   uint64 `json:"type"`
	Fields []any  `json:"fields"`
}

// warnings are the messages of that level, without colours.
func (r *result) warnings() []string {
	var list []string
	for _, e := range r.events {
		if e.Action == "msg" && e.Level == uint64(activity.Warn) {
			list = append(list, uncoloured(e.Msg))
		}
	}
	return list
}

func uncoloured(s string) string {
	return strings.NewReplacer(ansiNormal, "", ansiRed, "", ansiMagenta, "").Replace(s)
}

// do runs a job in this process. Its output is in a directory of its own, unless the job says where.
func do(t testing.TB, name string, job builtinjob.Job, env ...string) *result {
	t.Helper()
	dir := t.TempDir()
	job.Name = name
	if job.Outputs == nil {
		job.Outputs = map[string]string{"out": filepath.Join(t.TempDir(), "out")}
	}
	writeJob(t, dir, job)
	r := &result{out: job.Outputs["out"]}
	vars := map[string]string{}
	for _, entry := range env {
		k, v, _ := strings.Cut(entry, "=")
		vars[k] = v
	}
	b := &builder{getenv: func(name string) string { return vars[name] },
		pause: func(ctx context.Context, d time.Duration) error { r.pauses = append(r.pauses, d); return ctx.Err() }}
	var stderr bytes.Buffer
	r.exit = run(t.Context(), dir, name, b, &stderr)
	r.read(t, stderr.String())
	return r
}

func writeJob(t testing.TB, dir string, job builtinjob.Job) {
	t.Helper()
	text, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, builtinjob.File), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *result) read(t testing.TB, stderr string) {
	t.Helper()
	for line := range strings.Lines(stderr) {
		text, ok := strings.CutPrefix(line, "@nix ")
		if !ok {
			r.log += line
			continue
		}
		var e event
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatalf("bad line %q: %v", line, err)
		}
		r.events = append(r.events, e)
	}
}

// contents is the output, if it is a file.
func (r *result) contents(t testing.TB) string {
	t.Helper()
	if r.exit != 0 {
		t.Fatalf("exit status %d, log:\n%s", r.exit, r.log)
	}
	text, err := os.ReadFile(r.out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fails checks the whole log but for colours.
func (r *result) fails(t testing.TB, want string) {
	t.Helper()
	want = strings.ReplaceAll(want, "OUT", r.out)
	if got := uncoloured(r.log); r.exit != 1 || got != want+"\n" {
		t.Errorf("exit status %d, log:\n%s\nwant 1 and:\n%s", r.exit, got, want)
	}
}

func TestProcess(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := func(name string, job *builtinjob.Job) (int, string) {
		dir := t.TempDir()
		if job != nil {
			writeJob(t, dir, *job)
		}
		argv := Command(self, name)
		cmd := exec.Command(argv[0])
		cmd.Args, cmd.Dir, cmd.Env = argv, dir, []string{"GOCOVERDIR=" + t.TempDir()}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		_ = cmd.Run() // its status is looked at
		if _, err := os.Stat(filepath.Join(dir, builtinjob.File)); err == nil {
			t.Error("the job's file, with its secrets, is still there")
		}
		return cmd.ProcessState.ExitCode(), stderr.String()
	}

	out := filepath.Join(t.TempDir(), "out")
	exit, log := start("buildenv", &builtinjob.Job{Env: map[string]string{"derivations": "", "manifest": "/some/manifest"},
		Outputs: map[string]string{"out": out}})
	if link, _ := os.Readlink(out + "/manifest.nix"); exit != 0 || link != "/some/manifest" {
		t.Errorf("buildenv: exit status %d, manifest %q, log:\n%s", exit, link, log)
	}

	// As release 2.34.8 has it in the log of the build, to the byte.
	exit, log = start("nope", &builtinjob.Job{})
	if want := "\x1b[31;1merror:\x1b[0m unsupported builtin builder '\x1b[35;1mnope\x1b[0m'\n"; exit != 1 || log != want {
		t.Errorf("unknown builtin: exit status %d, log %q, want 1, %q", exit, log, want)
	}

	exit, log = start("fetchurl", nil)
	if exit != 1 || !strings.Contains(log, "read job of builtin builder: open .builtin.json: no such file") {
		t.Errorf("no job: exit status %d, log %q", exit, log)
	}
}

func TestTakeEnv(t *testing.T) {
	t.Setenv("GODEBUG", "x509negativeserial=1")
	t.Setenv("http_proxy", "p")
	saved := os.Environ()
	defer func() {
		for _, entry := range saved {
			name, value, _ := strings.Cut(entry, "=")
			os.Setenv(name, value)
		}
	}()
	if getenv := takeEnv(); getenv("http_proxy") != "p" || getenv("none") != "" || len(os.Environ()) != 0 {
		t.Errorf("proxy %q, left %q", getenv("http_proxy"), os.Environ())
	}
}

func TestInvoked(t *testing.T) {
	for _, args := range [][]string{{}, {"nix-daemon"}, {"nix-daemon", "--stdio"}, {"nix-daemon", "fetchurl", marker},
		{"nix-daemon", marker}} {
		if Invoked(args) {
			t.Errorf("Invoked(%q)", args)
		}
	}
	if !Invoked(Command("/bin/nix-daemon", "fetchurl")) {
		t.Error("a command is not recognised")
	}
}

func TestJobFileMalformed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, builtinjob.File), []byte(`{"env": 5}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readJob(dir); err == nil || !strings.HasPrefix(err.Error(), "read job of builtin builder: json: ") {
		t.Errorf("error %v", err)
	}
}

// The lines are the bytes of release 2.34.8, but for numbers of activities.
func TestLogLines(t *testing.T) {
	var b bytes.Buffer
	l := &logger{w: &b, verbosity: uint64(activity.Info)}
	l.Start(7, activity.Talkative, activity.FileTransfer, "downloading 'http://h/<&>'",
		[]activity.Field{activity.Text("http://h/<&>")}, 0)
	l.Result(7, activity.Progress, []activity.Field{activity.Number(3), activity.Number(0), activity.Number(0), activity.Number(0)})
	l.Stop(7)
	l.warn("odd")
	l.debug("never seen")
	want := `@nix {"action":"start","fields":["http://h/<&>"],"id":7,"level":4,"parent":0,"text":"downloading 'http://h/<&>'","type":101}
@nix {"action":"result","fields":[3,0,0,0],"id":7,"type":105}
@nix {"action":"stop","id":7}
@nix {"action":"msg","level":1,"msg":"\u001b[35;1mwarning:\u001b[0m odd"}
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestAttributeErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		job  builtinjob.Job
		want string
	}{
		{"buildenv", builtinjob.Job{}, "error: attribute 'derivations' missing"},
		{"buildenv", builtinjob.Job{Env: map[string]string{"derivations": ""}}, "error: attribute 'manifest' missing"},
		{"buildenv", builtinjob.Job{Env: map[string]string{"derivations": "", "manifest": "a\x00b"}}, "error: attribute 'manifest' contains a null byte"},
		{"buildenv", builtinjob.Job{Outputs: map[string]string{}}, "error: 'builtin:buildenv' requires an 'out' output"},
		{"unpack-channel", builtinjob.Job{Env: map[string]string{"src": "a"}}, "error: attribute 'channelName' missing"},
		{"unpack-channel", builtinjob.Job{Env: map[string]string{"channelName": "a"}}, "error: attribute 'src' missing"},
		{"fetchurl", builtinjob.Job{Outputs: map[string]string{"dev": "/x"}}, "error: 'builtin:fetchurl' requires an 'out' output"},
		{"fetchurl", builtinjob.Job{Env: map[string]string{"url": "http://h/"}}, "error: 'builtin:fetchurl' must be a fixed-output or impure derivation"},
		{"fetchurl", builtinjob.Job{Impure: true}, "error: attribute 'url' missing"},
	} {
		do(t, tt.name, tt.job).fails(t, tt.want)
	}
}

func contextWithin(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
