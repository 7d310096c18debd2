package build

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/builtin/builtinjob"
	"nixdaemon/worker/settings"
)

// environmentOf builds a derivation that records the environment that it was started with.
func (w *world) environmentOf(name string, change ...func(*derivation.Derivation)) map[string]string {
	w.Helper()
	file := w.root + "/environment"
	drv := w.drv(name, "/bin/cat /proc/$$/environ > "+file+"; echo > $out; /bin/pwd >> "+file, append(change, func(d *derivation.Derivation) {
		delete(d.Env, "PATH")
	})...)
	w.mustBuild(drv)
	text, err := os.ReadFile(file)
	if err != nil {
		w.Fatal(err)
	}
	env := make(map[string]string)
	parts := strings.Split(string(text), "\x00")
	for _, entry := range parts[:len(parts)-1] {
		k, v, _ := strings.Cut(entry, "=")
		env[k] = v
	}
	env["pwd"] = strings.TrimSpace(parts[len(parts)-1])
	return env
}

func TestEnvironment(t *testing.T) {
	w := newWorld(t)
	w.set(func(s *settings.Settings) { s.Cores = 3 })
	env := w.environmentOf("env", func(d *derivation.Derivation) {
		d.Env["HOME"] = "/mine"
		d.Env["TMPDIR"] = "/mine"
		d.Env["self"] = derivation.HashPlaceholder("out")
		d.Env["empty"] = ""
	})
	dir := env["NIX_BUILD_TOP"]
	if !strings.HasPrefix(dir, w.root+"/var/builds/nix-") {
		t.Errorf("build directory %q", dir)
	}
	want := map[string]string{
		"PATH": "/path-not-set", "HOME": "/mine", "NIX_STORE": w.root + "/store", "NIX_BUILD_CORES": "3",
		"NIX_BUILD_TOP": dir, "TMPDIR": dir, "TEMPDIR": dir, "TMP": dir, "TEMP": dir, "PWD": dir, "pwd": dir,
		"NIX_LOG_FD": "2", "TERM": "xterm-256color", "name": "env", "out": env["out"], "self": env["out"], "empty": "",
	}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Errorf("environment (-want +got)\n%s", diff)
	}
}

func TestEnvironmentOfFixedOutput(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Getenv = func(name string) string { return map[string]string{"http_proxy": "proxy", "SECRET": "no"}[name] }
	})
	w.set(func(s *settings.Settings) {
		s.ImpureEnv = map[string]string{"configured": "yes"}
		s.ExperimentalFeatures = settings.Features(settings.ConfigurableImpureEnv)
	})
	change := func(d *derivation.Derivation) { d.Env["impureEnvVars"] = "http_proxy unset configured" }
	env := w.environmentOf("fixed", fixed(storepath.MethodFlat, "\n"), change)
	for name, want := range map[string]string{"NIX_OUTPUT_CHECKED": "1", "http_proxy": "proxy", "unset": "", "configured": "yes"} {
		if got, ok := env[name]; !ok || got != want {
			t.Errorf("%s = %q (set: %t), want %q", name, got, ok, want)
		}
	}
	if _, ok := env["SECRET"]; ok {
		t.Error("a variable that was not asked for reached the builder")
	}
	pure := w.environmentOf("pure", change)
	for _, name := range []string{"http_proxy", "NIX_OUTPUT_CHECKED", "configured"} {
		if _, ok := pure[name]; ok {
			t.Errorf("%s reached a pure build", name)
		}
	}
}

func TestImpureEnvNeedsItsFeature(t *testing.T) {
	w := newWorld(t)
	w.set(func(s *settings.Settings) { s.ImpureEnv = map[string]string{"a": "b"} })
	drv := w.drv("fixed", "printf x > $out", fixed(storepath.MethodFlat, "x"))
	err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
	if err == nil || !strings.Contains(err.Error(), "configurable-impure-env") {
		t.Errorf("got %v", err)
	}
}

func TestPassAsFile(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("pass", "cat $fooPath > $out; echo $fooPath >> $out; echo [$foo] >> $out", func(d *derivation.Derivation) {
		d.Env["foo"] = "contents of " + derivation.HashPlaceholder("out") + "\n"
		d.Env["passAsFile"] = "foo absent"
	})
	out := w.mustBuild(drv)
	lines := strings.Split(w.read(out), "\n")
	if lines[0] != "contents of "+w.print(out) || !strings.HasSuffix(lines[1], "/.attr-1bp7cri8hplaz6hbz0v4f0nl44rl84q1sg25kgwqzipzd1mv89ic") || lines[2] != "[]" {
		t.Errorf("output %q", lines)
	}
}

func TestStructuredAttrs(t *testing.T) {
	w := newWorld(t)
	src := w.source("src", "x")
	attrs := `{"exportReferencesGraph":{"graph":["` + w.print(src) + `"]},"list":["a b","c"],"n":3}`
	drv := w.drv("structured", `PATH=/bin:/usr/bin; cat "$NIX_ATTRS_JSON_FILE"; cat "$NIX_ATTRS_SH_FILE"; exit 1`, func(d *derivation.Derivation) {
		d.StructuredAttrs = &attrs
		d.Env = map[string]string{"out": ""}
		d.InputSrcs = []storepath.Path{src}
	})
	w.mustFail(drv, derivation.StatusPermanentFailure)
	log := strings.Join(w.log.lines(), "\n")
	for _, want := range []string{
		`"outputs":{"out":"` + w.print(w.out(drv, "out")) + `"}`, `"path":"` + w.print(src) + `"`, `"valid":true`,
		"declare -a list=('a b' 'c' )", "declare n=3", "declare -A outputs=(['out']='" + w.print(w.out(drv, "out")) + "' )",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

func TestExportReferencesGraph(t *testing.T) {
	w := newWorld(t)
	lib := w.drv("lib", "echo lib > $out")
	libOut := w.out(lib, "out")
	user := w.drv("user", "echo "+w.print(libOut)+" > $out", dependsOn(lib))
	userOut := w.out(user, "out")
	drv := w.drv("export", "cat graph > $out", dependsOn(user), func(d *derivation.Derivation) {
		d.Env["exportReferencesGraph"] = "graph " + w.print(userOut)
	})
	out := w.mustBuild(drv)
	entry := map[storepath.Path]string{
		libOut:  w.print(libOut) + "\n\n0\n",
		userOut: w.print(userOut) + "\n\n1\n" + w.print(libOut) + "\n",
	}
	want := ""
	for _, p := range storepath.SortUnique([]storepath.Path{libOut, userOut}) {
		want += entry[p]
	}
	if got := w.read(out); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	foreign := w.drv("foreign", "echo > $out", func(d *derivation.Derivation) {
		d.Env["exportReferencesGraph"] = "graph " + w.print(userOut)
	})
	if got, want := w.mustFail(foreign, derivation.StatusInputRejected), "cannot export references of path '"+w.print(userOut)+
		"' because it is not in the input closure of the derivation"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStructuredMessages(t *testing.T) {
	w := newWorld(t)
	w.mustBuild(w.drv("phases", `
echo '@nix { "action": "setPhase", "phase": "unpackPhase" }'
echo '@nix { "action": "start", "id": 7, "level": 3, "type": 101, "text": "fetching", "fields": ["url"] }'
echo '@nix { "action": "result", "id": 7, "type": 105, "fields": [1, 2, 0, 0] }'
echo '@nix { "action": "start", "id": 8, "level": 3, "type": 105, "text": "forged build" }'
echo '@nix { "action": "msg", "level": 1, "msg": "hear me" }'
echo '@nix {'
echo > $out`))
	var phases []string
	for _, r := range w.log.results {
		if r.kind == 104 {
			phases = append(phases, r.fields[0].Text)
		}
	}
	if diff := cmp.Diff([]string{"unpackPhase"}, phases); diff != "" {
		t.Errorf("phases (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"fetching"}, w.log.activities(101)); diff != "" {
		t.Errorf("transfers (-want +got)\n%s", diff)
	}
	if got := w.log.activities(105); len(got) != 1 {
		t.Errorf("builds %q", got)
	}
	if !strings.Contains(w.log.logged(), "hear me") || !strings.Contains(w.log.logged(), "bad JSON log message from the derivation builder") {
		t.Errorf("messages %q", w.log.logged())
	}
	if diff := cmp.Diff([]string{"@nix {"}, w.log.lines()); diff != "" {
		t.Errorf("lines (-want +got)\n%s", diff)
	}
	if n := w.log.unstopped(); n != 0 {
		t.Errorf("%d activities have not stopped", n)
	}
}

// TestBuiltin runs a program in the place of a builtin builder.
func TestBuiltin(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.BuiltinCommand = func(name string) []string {
			return []string{"/bin/sh", "-c", `out=$(/bin/sed 's/.*"outputs":{"out":"\([^"]*\).*/\1/' ` + builtinjob.File + `)
/bin/cp ` + builtinjob.File + ` $out; /bin/ls -l ` + builtinjob.File + `; echo "$http_proxy $url$GODEBUG$0"`, name}
		}
		o.Getenv = func(name string) string { return map[string]string{"http_proxy": "proxy"}[name] }
	})
	netrc := w.root + "/netrc"
	if err := os.WriteFile(netrc, []byte("machine x"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.set(func(s *settings.Settings) { s.NetrcFile, s.HashedMirrors = netrc, []string{"http://mirror"} })
	drv := w.drv("fetch", "", fixed(storepath.MethodNAR, "anything"), func(d *derivation.Derivation) {
		d.Builder, d.Args = "builtin:fetchurl", nil
		d.Env["url"], d.Env["GODEBUG"] = "http://x", "x509negativeserial=1"
	})
	// The result is not what the hash says, but it is there under its own path.
	w.mustFail(drv, derivation.StatusOutputRejected)
	valid, err := w.store.AllValidPaths(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range valid {
		if p.Name() != "fetch" {
			continue
		}
		var job builtinjob.Job
		if err := json.Unmarshal([]byte(w.read(p)), &job); err != nil {
			t.Fatal(err)
		}
		if job.Name != "fetchurl" || job.Env["url"] != "http://x" || job.Outputs["out"] != w.print(p) || job.FixedAlgo != "r:sha256" ||
			job.Netrc != "machine x" || len(job.HashedMirrors) != 1 ||
			job.Transfer == nil || job.Transfer.Attempts != 5 || job.Verbosity != uint64(w.sess.Settings.Verbosity) {
			t.Errorf("job %+v", job)
		}
		if lines := w.log.lines(); len(lines) != 2 || !strings.HasPrefix(lines[0], "-rw-------") || lines[1] != "proxy fetchurl" {
			t.Errorf("mode of the file, environment: %q", lines)
		}
		return
	}
	t.Error("no result")
}
