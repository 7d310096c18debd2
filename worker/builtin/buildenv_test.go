package builtin

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/worker/builtin/builtinjob"
)

// plant makes files in a new directory: a name that ends in "/" is a directory, a value that begins with "->" a link.
func plant(t testing.TB, files map[string]string) string {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path, value := filepath.Join(top, name), strings.ReplaceAll(files[name], "TOP", top)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		target, isLink := strings.CutPrefix(value, "->")
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case isLink:
			err = os.Symlink(target, path)
		default:
			err = os.WriteFile(path, []byte(value), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return top
}

// tree describes what is in a directory: links with their targets, files with their contents, directories as "/".
func tree(t testing.TB, top string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == top {
			return err
		}
		name := path[len(top)+1:]
		switch d.Type() {
		case fs.ModeDir:
			found[name] = "/"
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			found[name] = "->" + target
			return err
		default:
			text, err := os.ReadFile(path)
			found[name] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// environments are packages, what is installed of them, and what comes of it; TOP is where the packages are.
var environments = []struct {
	name        string
	files       map[string]string
	derivations string
	want        map[string]string // nil for an error
	err         string
	warning     string
}{
	{name: "one package is linked as it is",
		files:       map[string]string{"a/bin/x": "", "a/share/y": "", "a/top": ""},
		derivations: "true 5 1 TOP/a",
		want:        map[string]string{"bin": "->TOP/a/bin", "share": "->TOP/a/share", "top": "->TOP/a/top"}},
	{name: "directories are merged, deep down too",
		files:       map[string]string{"a/share/d/x": "", "b/share/d/y": "", "b/share/e/z": "", "c/share/d/w": ""},
		derivations: "true 5 1 TOP/a true 5 1 TOP/b true 5 1 TOP/c",
		want: map[string]string{"share": "/", "share/d": "/", "share/d/x": "->TOP/a/share/d/x", "share/d/y": "->TOP/b/share/d/y",
			"share/d/w": "->TOP/c/share/d/w", "share/e": "->TOP/b/share/e"}},
	{name: "the lower number wins",
		files:       map[string]string{"a/bin/x": "", "b/bin/x": "", "b/bin/y": ""},
		derivations: "true 6 1 TOP/a true 5 1 TOP/b",
		want:        map[string]string{"bin": "/", "bin/x": "->TOP/b/bin/x", "bin/y": "->TOP/b/bin/y"}},
	{name: "negative priorities",
		files:       map[string]string{"a/x": "", "b/x": ""},
		derivations: "true 0 1 TOP/a true -1 1 TOP/b",
		want:        map[string]string{"x": "->TOP/b/x"}},
	{name: "inactive packages and several outputs",
		files:       map[string]string{"a/x": "", "b/y": "", "c/z": ""},
		derivations: "false 5 1 TOP/a 1 5 2 TOP/b TOP/c",
		want:        map[string]string{"y": "->TOP/b/y", "z": "->TOP/c/z"}},
	{name: "propagated packages come last",
		files: map[string]string{"a/x": "", "a/nix-support/propagated-user-env-packages": "TOP/b TOP/c\n", "b/x": "", "b/y": "",
			"b/nix-support/propagated-user-env-packages": "TOP/d", "c/y": "", "d/y": "", "d/z": "", "d/nix-support/propagated-user-env-packages": "TOP/a"},
		derivations: "true 5 1 TOP/a",
		want:        map[string]string{"x": "->TOP/a/x", "y": "->TOP/b/y", "z": "->TOP/d/z"}},
	{name: "some files are left out",
		files: map[string]string{"a/.hidden": "", "a/nix-support/x": "", "a/manifest.nix": "", "a/manifest.json": "", "a/log": "",
			"a/propagated-build-inputs": "", "a/perllocal.pod": "", "a/info/dir": "", "a/info/x.info": "", "a/dir": "", "b/info/dir": "", "b/info/y.info": ""},
		derivations: "true 5 1 TOP/a true 5 1 TOP/b",
		want:        map[string]string{"dir": "->TOP/a/dir", "info": "/", "info/x.info": "->TOP/a/info/x.info", "info/y.info": "->TOP/b/info/y.info"}},
	{name: "links to directories are merged like directories",
		files:       map[string]string{"r/lib/x": "", "a/lib": "->TOP/r/lib", "b/lib/y": ""},
		derivations: "true 5 1 TOP/a true 5 1 TOP/b",
		want:        map[string]string{"lib": "/", "lib/x": "->TOP/r/lib/x", "lib/y": "->TOP/b/lib/y"}},
	{name: "the same package twice", files: map[string]string{"a/x": ""}, derivations: "true 5 2 TOP/a TOP/a", want: map[string]string{"x": "->TOP/a/x"}},
	{name: "collision of files", files: map[string]string{"a/bin/x": "", "b/bin/x": ""},
		derivations: "true 5 1 TOP/b true 5 1 TOP/a",
		err: "error: Unable to build profile. There is a conflict for the following files:\n\n" +
			"         \"TOP/a/bin/x\"\n         \"TOP/b/bin/x\""},
	{name: "collision of a directory with a file", files: map[string]string{"a/x": "", "b/x/y": ""},
		derivations: "true 5 1 TOP/a true 6 1 TOP/b",
		err:         `error: collision between "TOP/b/x" and non-directory "TOP/a/x"`},
	{name: "collision of a file with a directory", files: map[string]string{"a/x/p": "", "b/x/q": "", "c/x": ""},
		derivations: "true 5 1 TOP/a true 5 1 TOP/b true 6 1 TOP/c",
		err:         `error: collision between non-directory 'TOP/c/x' and directory 'OUT/x'`},
	{name: "a file wins against a linked directory by priority", files: map[string]string{"a/x/p": "", "c/x": ""},
		derivations: "true 5 1 TOP/a true 6 1 TOP/c", want: map[string]string{"x": "->TOP/a/x"}},
	{name: "no such package", derivations: "true 5 1 TOP/a",
		err: `error: cannot read directory "TOP/a": No such file or directory`},
	{name: "a package that is a file", files: map[string]string{"a": ""}, derivations: "true 5 1 TOP/a", want: map[string]string{},
		warning: `warning: not including "TOP/a" in the user environment because it's not a directory`},
	{name: "dangling link", files: map[string]string{"a/x": "->/nonexistent/x", "a/y": ""}, derivations: "true 5 1 TOP/a",
		want: map[string]string{"y": "->TOP/a/y"}, warning: "warning: skipping dangling symlink 'OUT/x'"},
}

func TestBuildenv(t *testing.T) {
	for _, tt := range environments {
		t.Run(tt.name, func(t *testing.T) {
			top := plant(t, tt.files)
			r := do(t, "buildenv", builtinjob.Job{Env: map[string]string{"manifest": "/m",
				"derivations": strings.ReplaceAll(tt.derivations, "TOP", top)}})
			fill := strings.NewReplacer("TOP", top, "OUT", r.out)
			if tt.warning != "" {
				if diff := cmp.Diff([]string{fill.Replace(tt.warning)}, r.warnings()); diff != "" {
					t.Errorf("warnings (-want +got):\n%s", diff)
				}
			}
			if tt.err != "" {
				r.fails(t, fill.Replace(tt.err))
				return
			}
			if r.exit != 0 {
				t.Fatalf("exit status %d:\n%s", r.exit, r.log)
			}
			want := map[string]string{"manifest.nix": "->/m"}
			for name, value := range tt.want {
				want[name] = fill.Replace(value)
			}
			if diff := cmp.Diff(want, tree(t, r.out)); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
		})
	}
}

// The colours are those of release 2.34.8.
func TestCollisionColours(t *testing.T) {
	top := plant(t, map[string]string{"a/x": "", "b/x": ""})
	r := do(t, "buildenv", builtinjob.Job{Env: map[string]string{"derivations": "true 5 2 " + top + "/a " + top + "/b"}})
	want := "\x1b[31;1merror:\x1b[0m Unable to build profile. There is a conflict for the following files:\n\n" +
		"         \x1b[35;1m\"" + top + "/a/x\"\x1b[0m\n         \x1b[35;1m\"" + top + "/b/x\"\x1b[0m\n"
	if r.log != want {
		t.Errorf("got  %q\nwant %q", r.log, want)
	}
}

// A directory that contains itself is merged with itself as often as the kernel follows links, not for ever.
func TestBuildenvSelf(t *testing.T) {
	top := plant(t, map[string]string{"a/self": "->.", "b/self": "->.", "b/x": ""})
	r := do(t, "buildenv", builtinjob.Job{Env: map[string]string{"manifest": "/m", "derivations": "true 5 2 " + top + "/a " + top + "/b"}})
	if r.exit != 0 && !strings.Contains(r.log, "Too many levels of symbolic links") {
		t.Errorf("exit status %d:\n%s", r.exit, r.log)
	}
}

// upstreamBuild makes a derivation with the upstream release whose programs are in the directory NIXDAEMON_UPSTREAM.
func upstreamBuild(t *testing.T, expr string) (out, log string, ok bool) {
	t.Helper()
	bin := os.Getenv("NIXDAEMON_UPSTREAM")
	if bin == "" {
		t.Skip("needs upstream's programs: NIXDAEMON_UPSTREAM names no directory with nix-build")
	}
	dir := t.TempDir()
	cmd := exec.Command(filepath.Join(bin, "nix-build"), "--no-out-link", "-E", expr)
	cmd.Env = append(os.Environ(), "HOME="+dir, "NIX_STORE_DIR="+dir+"/store", "NIX_STATE_DIR="+dir+"/var",
		"NIX_LOG_DIR="+dir+"/log", "NIX_CONF_DIR="+dir+"/etc", "NIX_REMOTE=",
		"NIX_CONFIG=sandbox = false\nbuild-users-group =\nsubstituters =\n")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	return strings.TrimSpace(string(text)), stderr.String(), err == nil
}

func TestBuildenvUpstream(t *testing.T) {
	for _, tt := range environments {
		t.Run(tt.name, func(t *testing.T) {
			top := plant(t, tt.files)
			derivations := strings.ReplaceAll(tt.derivations, "TOP", top)
			out, log, ok := upstreamBuild(t, `derivation { name = "x"; system = "builtin"; builder = "builtin:buildenv"; manifest = "/m"; `+
				`derivations = "`+derivations+`"; }`)
			r := do(t, "buildenv", builtinjob.Job{Env: map[string]string{"manifest": "/m", "derivations": derivations}})
			if ok != (r.exit == 0) {
				t.Fatalf("upstream succeeds: %v, we: %v\n%s", ok, r.exit == 0, log)
			}
			if !ok {
				for line := range strings.Lines(uncoloured(r.log)) {
					if !strings.Contains(line, r.out) && !strings.Contains(log, strings.TrimSpace(line)) {
						t.Errorf("line %q is not in upstream's log:\n%s", line, log)
					}
				}
				return
			}
			if diff := cmp.Diff(tree(t, out), tree(t, r.out)); diff != "" {
				t.Errorf("environment (-upstream +ours):\n%s", diff)
			}
		})
	}
}
