package daemon_test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// pkg is what "go list" tells of a package of ours.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	GoFiles    []string
	Imports    []string
	Deps       []string
	TestImports,
	XTestImports []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json", "nixdaemon/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// forbidden says which packages must not depend on which, directly or through
// others, and why. A name ending in /... covers everything below.
var forbidden = []struct{ from, to, why string }{
	{"nixdaemon/protocol/wire", "nixdaemon/...", "primitives know no formats"},
	{"nixdaemon/protocol/nixhash", "nixdaemon/...", "digests know no formats"},
	{"nixdaemon/protocol/activity", "nixdaemon/...", "levels and numbers know no formats"},
	{"nixdaemon/protocol/...", "nixdaemon/localstore/...", "formats touch no disk"},
	{"nixdaemon/protocol/...", "nixdaemon/worker/...", "formats know no policy"},
	{"nixdaemon/protocol/...", "nixdaemon/sandbox/...", "formats run nothing"},
	{"nixdaemon/protocol/...", "nixdaemon/daemon/...", "formats are below the daemon"},
	{"nixdaemon/localstore/...", "nixdaemon/protocol", "the store knows no operations"},
	{"nixdaemon/localstore/...", "nixdaemon/worker/...", "the store knows no users or schedulers"},
	{"nixdaemon/localstore/...", "nixdaemon/daemon/...", "the store is below the daemon"},
	{"nixdaemon/localstore/...", "nixdaemon/sandbox/...", "the store runs nothing"},
	{"nixdaemon/sandbox/...", "nixdaemon/protocol/...", "a sandbox knows no store paths or derivations"},
	{"nixdaemon/sandbox/...", "nixdaemon/localstore/...", "a sandbox knows no stores"},
	{"nixdaemon/sandbox/...", "nixdaemon/worker/...", "a sandbox knows no schedulers"},
	{"nixdaemon/sandbox/...", "nixdaemon/daemon/...", "a sandbox is below the daemon"},
	{"nixdaemon/worker", "nixdaemon/worker/build", "the daemon joins them"},
	{"nixdaemon/worker", "nixdaemon/worker/substitute", "the daemon joins them"},
	{"nixdaemon/worker/build", "nixdaemon/protocol", "building knows no operations"},
	{"nixdaemon/worker/build", "nixdaemon/worker", "the daemon joins them"},
	{"nixdaemon/worker/build", "nixdaemon/worker/substitute", "the daemon joins them"},
	{"nixdaemon/worker/build", "nixdaemon/worker/restricted", "the daemon joins them"},
	{"nixdaemon/worker/build", "nixdaemon/worker/remote", "the daemon joins them"},
	{"nixdaemon/worker", "nixdaemon/worker/remote", "the daemon joins them"},
	{"nixdaemon/worker/substitute/...", "nixdaemon/worker/build", "the daemon joins them"},
	{"nixdaemon/worker/substitute/...", "nixdaemon/worker", "the daemon joins them"},
	{"nixdaemon/worker/substitute/narinfocache", "nixdaemon/localstore/...", "what caches have said has to do with no store"},
	{"nixdaemon/worker/restricted", "nixdaemon/worker/build", "the daemon joins them"},
	{"nixdaemon/worker/...", "nixdaemon/daemon/...", "workers are below the daemon"},
	{"nixdaemon/daemon/supervisor", "nixdaemon/...", "the supervisor knows nothing of what is served"},
}

func matchesPattern(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	return pattern == path
}

func TestImportDirection(t *testing.T) {
	for _, p := range packages(t) {
		for _, rule := range forbidden {
			if !matchesPattern(rule.from, p.ImportPath) {
				continue
			}
			for _, dep := range p.Deps {
				if matchesPattern(rule.to, dep) && !matchesPattern(rule.from, dep) {
					t.Errorf("%s depends on %s: %s", p.ImportPath, dep, rule.why)
				}
			}
		}
	}
}

// TestTestPackages keeps packages named ...test out of the binary.
func TestTestPackages(t *testing.T) {
	for _, p := range packages(t) {
		for _, dep := range p.Imports {
			if strings.HasPrefix(dep, "nixdaemon/") && strings.HasSuffix(dep, "test") && !strings.HasSuffix(p.ImportPath, "test") {
				t.Errorf("%s imports %s outside of its tests", p.ImportPath, dep)
			}
		}
	}
}

// TestPackageComments wants exactly one comment for each package, beginning as
// Go's tools expect.
func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		var comments []string
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				comments = append(comments, f.Doc.Text())
			}
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.Dir) + " "
		}
		switch {
		case len(p.GoFiles) == 0: // tests alone
		case len(comments) != 1:
			t.Errorf("%s has %d package comments, want 1", p.ImportPath, len(comments))
		case !strings.HasPrefix(comments[0], want):
			t.Errorf("%s: package comment begins %q, want %q", p.ImportPath, firstWords(comments[0]), want)
		}
	}
}

func firstWords(s string) string { return s[:min(len(s), 40)] }

// TestTopLevel keeps the root of the repository to its fixed names.
func TestTopLevel(t *testing.T) {
	allowed := "daemon worker protocol localstore sandbox compat-tests contrib go.mod go.sum README.md LICENSE CHANGELOG.md CONTRIBUTING.md Makefile .ci .gitignore .git staticcheck.conf"
	out, err := exec.Command("git", "-C", "..", "ls-tree", "--name-only", "HEAD").Output()
	if err != nil {
		t.Skipf("no git checkout here: %v", err)
	}
	for _, name := range strings.Fields(string(out)) {
		if !strings.Contains(" "+allowed+" ", " "+name+" ") {
			t.Errorf("%s does not belong at the root", name)
		}
	}
}
