package derivation

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nixdaemon/protocol/storepath"
)

// expression has derivations of all kinds, each depending on those before.
const expression = `
let
  mk = name: attrs: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // attrs);
  plain = mk "plain" { text = "tab\t quote\" backslash\\ newline\n dollar$ é"; args = [ "-c" "x" ]; src = builtins.toFile "s" "x"; };
  flat = mk "flat" { outputHash = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="; url = plain.name; };
  tree = mk "tree" { outputHashMode = "recursive"; outputHashAlgo = "sha1"; outputHash = "a9993e364706816aba3e25717850c26c9cd0d89d"; inherit flat; };
  other = mk "flat" { outputHash = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="; url = "elsewhere"; };
  multi = mk "multi" { outputs = [ "out" "dev" "lib" ]; inherit plain flat tree; twice = other; };
  attrs = mk "attrs" { __structuredAttrs = true; floats = [ 1.0 0.1 1.0e300 1234567890123456.7 ]; inherit multi; deep.a.b = [ null true { } [ ] ]; text = "é\n\"" ; };
  ca = mk "ca" { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; dep = multi.dev; outputs = [ "out" "bin" ]; };
  deferred = mk "deferred" { inherit ca; bin = ca.bin; lib = multi.lib; };
  impure = mk "impure" { __impure = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
  maker = mk "made.drv" { __contentAddressed = true; outputHashMode = "text"; outputHashAlgo = "sha256"; };
  dynamic = mk "dynamic" { dep = builtins.outputOf maker.outPath "out"; also = "${deferred}"; };
in [ attrs deferred impure dynamic ]
`

// instantiate makes the expression's derivations in a scratch store, of which
// it gives the directory.
func instantiate(t *testing.T) string {
	t.Helper()
	program := filepath.Join(os.Getenv("NIXDAEMON_UPSTREAM"), "nix-instantiate")
	if os.Getenv("NIXDAEMON_UPSTREAM") == "" {
		found, err := exec.LookPath("nix-instantiate")
		if err != nil {
			t.Skip("no upstream nix: set NIXDAEMON_UPSTREAM to the bin directory of release 2.34.8")
		}
		program = found
	}
	root := t.TempDir()
	cmd := exec.Command(program, "--store", "local?root="+root, "--extra-experimental-features",
		"ca-derivations dynamic-derivations impure-derivations", "-")
	cmd.Stdin = strings.NewReader(expression)
	cmd.Env = append(os.Environ(), "HOME="+root, "NIX_CONF_DIR="+root, "NIX_REMOTE=")
	out, err := cmd.CombinedOutput()
	if os.Getenv("NIXDAEMON_UPSTREAM") == "" && strings.Contains(string(out), "attribute 'outputOf' missing") {
		t.Skipf("%s is too old to know dynamic derivations", program)
	}
	if err != nil {
		t.Fatalf("nix-instantiate: %v\n%s", err, out)
	}
	return filepath.Join(root, "nix", "store")
}

// Upstream's evaluator and this package agree on every byte and path.
func TestUpstreamDerivations(t *testing.T) {
	store := instantiate(t)
	load := func(_ context.Context, p storepath.Path) (*Derivation, error) {
		text, err := os.ReadFile(filepath.Join(store, p.Base()))
		if err != nil {
			return nil, err
		}
		return ParseFile(dir, p, string(text), AllFeatures())
	}
	h := &Hasher{Dir: dir, Load: load, Memo: NewMemo(100)}
	files, err := filepath.Glob(filepath.Join(store, "*.drv"))
	if err != nil || len(files) < 11 {
		t.Fatalf("%d derivations were made (%v)", len(files), err)
	}
	for _, file := range files {
		p := base(t, filepath.Base(file))
		t.Run(p.Name(), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d, err := load(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if got := mustATerm(t, d); got != string(text) {
				t.Errorf("got  %s\nwant %s", got, text)
			}
			if got, err := d.Path(dir); got != p || err != nil {
				t.Errorf("path %v, %v, want %v", got, err, p)
			}
			if warnings, err := h.CheckInvariants(t.Context(), d, p); err != nil || len(warnings) != 0 {
				t.Errorf("invariants: %v, %v", warnings, err)
			}
		})
	}
}
