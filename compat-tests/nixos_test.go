package compat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeNixpkgs stands for as much of nixpkgs as our expressions use: they are evaluated for real, what they call is
// not. That the package builds and the units are put together as NixOS does is not shown by it.
const fakeNixpkgs = `
rec {
  lib = {
    mkEnableOption = text: { default = false; description = "Whether to enable ${text}."; };
    mkOption = o: o;
    mkIf = condition: content: if condition then content else { };
    mkForce = x: x;
    literalExpression = x: x;
    types.package = "package";
    cleanSource = x: x;
    licenses.asl20 = "asl20";
    platforms.unix = [ "unix" ];
    genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
  };
  pkgs = {
    inherit lib;
    stdenv.hostPlatform.isLinux = true;
    coreutils = "/coreutils";
    busybox-sandbox-shell = "/busybox";
    buildGoModule = arguments: arguments // { outPath = "/${arguments.pname}-${arguments.version}"; };
    callPackage = file: more:
      let f = import file; in f (builtins.intersectAttrs (builtins.functionArgs f) pkgs // more);
  };
  # What a module does with its options as they are by default, but for enable. They come from what it imports.
  module = file: enable:
    let
      evaluated = import file { inherit lib pkgs config; };
      imported = map (f: import f { inherit lib pkgs config; }) evaluated.imports;
      options = builtins.foldl' (all: m: all // m.options.services.nixdaemon) { } imported;
      config = { services.nixdaemon = builtins.mapAttrs (_: o: o.default) options // { inherit enable; }; nix.enable = true; };
    in
    evaluated.config;
}
`

// ownVersion is what our packages are called after.
func ownVersion(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile("../daemon/version.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(source), "\nconst Version = \"")
	version, _, ended := strings.Cut(rest, "\"\n")
	if !found || !ended {
		t.Fatal("no version in daemon/version.go")
	}
	return version
}

func contribNix(t *testing.T) string {
	t.Helper()
	here, err := filepath.Abs("../contrib/nix")
	if err != nil {
		t.Fatal(err)
	}
	return here
}

// evaluate gives what an expression is, with contrib/nix as "here" and the names of fakeNixpkgs.
func evaluate(t *testing.T, s scratch, c client, expr string) any {
	t.Helper()
	out := s.must(t, c, []string{"NIX_REMOTE=dummy://"}, "nix-instantiate", "--eval", "--strict", "--json", "-E",
		"with "+fakeNixpkgs+"; let here = "+contribNix(t)+"; in "+expr)
	var value any
	if err := json.Unmarshal([]byte(out), &value); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return value
}

func TestNixExpressions(t *testing.T) {
	t.Parallel()
	c := requireClients(t, referenceVersion)[0]
	s := newScratch(t)
	s.configureClient(t, c)
	version := ownVersion(t)
	program := "/nixdaemon-" + version + "/bin/nix-daemon"
	tests := map[string]struct {
		expr string
		want any
	}{
		"package": {
			`let p = pkgs.callPackage (here + "/package.nix") { commit = "abc"; }; in [ p.pname p.version p.subPackages p.env.CGO_ENABLED p.ldflags (builtins.pathExists (p.src + "/go.mod")) (builtins.stringLength p.vendorHash) ]`,
			[]any{
				"nixdaemon", version, []any{"daemon/cmd/nix-daemon"}, "0",
				[]any{"-s", "-w", "-X nixdaemon/daemon.commit=abc", "-X nixdaemon/daemon/config.sandboxShell=/busybox/bin/busybox"},
				true, float64(len("sha256-") + 44),
			},
		},
		"overlay": {`let final = pkgs // import (here + "/overlay.nix") final pkgs; in final.nixdaemon.pname`, "nixdaemon"},
		"NixOS": {
			`let s = (module (here + "/nixos-module.nix") true).systemd.services.nix-daemon.serviceConfig; in [ s.ExecStart s.Type s.ExecReload s.ExecStopPost s.WatchdogSec ]`,
			[]any{[]any{"", "@" + program + " nix-daemon --daemon"}, "notify", "/coreutils/bin/kill -HUP $MAINPID", "-" + program + " --release-cgroups", float64(60)},
		},
		"NixOS, off": {`module (here + "/nixos-module.nix") false`, map[string]any{}},
		"NixOS asserts": {
			`map (a: a.assertion) (module (here + "/nixos-module.nix") true).assertions`, []any{true},
		},
		"nix-darwin": {`(module (here + "/darwin-module.nix") true).launchd.daemons.nix-daemon.command`, program},
		"flake": {
			`let f = (import (here + "/flake.nix")).outputs { self = { shortRev = "abc"; }; nixpkgs = { inherit lib; legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ] (_: pkgs); }; };
			 in [ (builtins.attrNames f.packages) f.packages.aarch64-linux.default.pname (builtins.pathExists f.nixosModules.default) (builtins.pathExists f.darwinModules.default) (builtins.isFunction f.overlays.default) ]`,
			[]any{[]any{"aarch64-darwin", "aarch64-linux", "x86_64-darwin", "x86_64-linux"}, "nixdaemon", true, true, true},
		},
	}
	for _, name := range []string{"nixos", "darwin"} { // both have the options, and none by itself
		tests[name+" options"] = struct {
			expr string
			want any
		}{
			`let m = import (here + "/` + name + `-module.nix") { inherit lib pkgs; config = { }; }; in [ (m ? options) (map toString m.imports) ]`,
			[]any{false, []any{filepath.Join(contribNix(t), "options.nix")}},
		}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, evaluate(t, s, c, tt.expr)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestVendorHash has the hash that nixpkgs' builder wants computed from the modules that go.mod now names.
func TestVendorHash(t *testing.T) {
	t.Parallel()
	c := requireClients(t, referenceVersion)[0]
	s := newScratch(t)
	s.configureClient(t, c)
	cmd := exec.Command("../contrib/nix/vendor-hash")
	cmd.Env = append(append(os.Environ(), c.env...), "PATH="+c.bin+string(os.PathListSeparator)+os.Getenv("PATH"), "NIX_CONF_DIR="+s.path("client-etc"), "NIX_REMOTE=dummy://")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	text, err := os.ReadFile("../contrib/nix/package.nix")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("vendorHash = %q;", strings.TrimSpace(string(out))); !strings.Contains(string(text), want) {
		t.Errorf("contrib/nix/package.nix does not follow go.mod (contrib/nix/vendor-hash -w writes it): it wants\n%s", want)
	}
}
