package settings

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// upstream is the reference program, release 2.34.8.
type upstream struct{ nix string }

// findUpstream looks in the directory NIXDAEMON_UPSTREAM, then in PATH.
func findUpstream(t *testing.T) upstream {
	t.Helper()
	nix := filepath.Join(os.Getenv("NIXDAEMON_UPSTREAM"), "nix")
	if os.Getenv("NIXDAEMON_UPSTREAM") == "" {
		var err error
		if nix, err = exec.LookPath("nix"); err != nil {
			t.Skip("no upstream nix: set NIXDAEMON_UPSTREAM to the bin directory of release 2.34.8")
		}
	}
	out, err := exec.Command(nix, "--version").Output()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), " 2.34.8") {
		t.Skipf("%s is not release 2.34.8: %s (%v)", nix, out, err)
	}
	return upstream{nix}
}

// allFeatures enables every experimental feature.
func allFeatures() FeatureSet {
	var set FeatureSet
	for f := NoFeature + 1; f < numFeatures; f++ {
		set |= Features(f)
	}
	return set
}

// show runs `nix config show` over a configuration text with all features enabled.
func (u upstream) show(t *testing.T, conf string, args ...string) (stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	text := "experimental-features = " + allFeatures().String() + "\n" + conf
	if err := os.WriteFile(filepath.Join(dir, "nix.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(u.nix, append([]string{"config", "show"}, args...)...)
	cmd.Env = append(os.Environ(), "NIX_CONF_DIR="+dir, "HOME="+dir, "NIX_CONFIG=", "NIX_USER_CONF_FILES=",
		"NIX_REMOTE=auto", "NIX_SSL_CERT_FILE=", "SSL_CERT_FILE=", "NIX_IGNORE_SYMLINK_STORE=0")
	var errText strings.Builder
	cmd.Stderr = &errText
	out, err := cmd.Output()
	if err != nil && errText.Len() == 0 {
		t.Fatal(err)
	}
	// The configuration directory differs between runs.
	clean := func(s string) string { return strings.ReplaceAll(s, dir, "/etc/nix") }
	return clean(string(out)), clean(errText.String())
}

func parseShown(text string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " = "); ok {
			values[name] = value
		}
	}
	return values
}

// hostOf makes the environment that gives the host-dependent defaults that upstream shows.
func hostOf(shown map[string]string) Environment {
	features := strings.Fields(shown["system-features"])
	env := Environment{
		System: shown["system"], Root: os.Geteuid() == 0, KVM: slices.Contains(features, "kvm"),
		AppleVirt:     slices.Contains(features, "apple-virt"),
		SandboxShell:  strings.TrimPrefix(shown["sandbox-paths"], "/bin/sh="),
		SystemSSLCert: shown["ssl-cert-file"], BuildHook: strings.Fields(shown["build-hook"]),
		CPUs: uint(runtime.NumCPU()),
	}
	for _, p := range strings.Fields(shown["extra-platforms"]) {
		if level, ok := strings.CutSuffix(p, "-linux"); ok && p != "i686-linux" {
			env.CPULevels = append(env.CPULevels, level)
		}
	}
	return env
}

func shownBy(s *Settings) map[string]string {
	values := map[string]string{}
	for name, value := range s.All() {
		values[name] = value
	}
	return values
}

// TestUpstreamDefaults compares every name and default with the reference program.
func TestUpstreamDefaults(t *testing.T) {
	out, _ := findUpstream(t).show(t, "")
	want := parseShown(out)
	s := Defaults(hostOf(want))
	s.ExperimentalFeatures = allFeatures()
	want["pure-eval"] = "false" // the nix command turns it on for itself
	if diff := cmp.Diff(want, shownBy(s)); diff != "" {
		t.Errorf("defaults (-upstream +ours):\n%s", diff)
	}
}

// TestUpstreamTable compares aliases and guarding features.
func TestUpstreamTable(t *testing.T) {
	out, _ := findUpstream(t).show(t, "", "--json")
	var want map[string]struct {
		Aliases             []string
		ExperimentalFeature *string
	}
	if err := json.Unmarshal([]byte(out), &want); err != nil {
		t.Fatal(err)
	}
	s := Defaults(testHost())
	for name, w := range want {
		info, ok := s.Lookup(name)
		if !ok || info.Name != name || info.Later {
			t.Errorf("%s: %+v, %v", name, info, ok)
			continue
		}
		aliases := slices.DeleteFunc(slices.Clone(info.Aliases), func(a string) bool {
			return a == "filetransfer-retry-attempts" // of 2.35
		})
		if !slices.Equal(aliases, w.Aliases) {
			t.Errorf("%s: aliases %q, upstream has %q", name, aliases, w.Aliases)
		}
		if w.ExperimentalFeature != nil && *w.ExperimentalFeature != info.Feature.String() ||
			w.ExperimentalFeature == nil && info.Feature != NoFeature {
			t.Errorf("%s: feature %q, upstream has %v", name, info.Feature, w.ExperimentalFeature)
		}
	}
}

// TestUpstreamValues gives both programs the same values, all in one configuration.
func TestUpstreamValues(t *testing.T) {
	u := findUpstream(t)
	out, _ := u.show(t, "")
	s := Defaults(hostOf(parseShown(out)))
	s.ExperimentalFeatures = allFeatures()
	var conf strings.Builder
	for _, v := range goodValues {
		conf.WriteString(v.Name + " = " + v.Value + "\n")
		if err := s.Set(v.Name, strings.Join(strings.Fields(v.Value), " ")); err != nil {
			t.Errorf("%s = %s: %v", v.Name, v.Value, err)
		}
	}
	out, stderr := u.show(t, conf.String())
	want := parseShown(out)
	want["pure-eval"] = "false"
	if diff := cmp.Diff(want, shownBy(s)); diff != "" {
		t.Errorf("values (-upstream +ours):\n%s\n%s", diff, stderr)
	}
}

// TestUpstreamErrors compares the text of each refusal.
func TestUpstreamErrors(t *testing.T) {
	u := findUpstream(t)
	own := make(map[string]bool)
	for info := range Defaults(testHost()).Infos() {
		own[info.Name] = info.Group == GroupOwn
	}
	for _, v := range badValues {
		if own[v.Name] {
			continue // upstream knows nothing of it
		}
		_, stderr := u.show(t, v.Name+" = "+v.Value)
		want, _, _ := strings.Cut(strings.TrimPrefix(stderr, "error: "), "\n")
		s := Defaults(testHost())
		s.ExperimentalFeatures = allFeatures()
		if err := s.Set(v.Name, v.Value); err == nil || err.Error() != want {
			t.Errorf("%s = %s: %v, upstream says %s", v.Name, v.Value, err, want)
		}
	}
}
