package settings

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testHost() Environment {
	return Environment{System: "x86_64-linux", CPUs: 8, Root: true, KVM: true, CPULevels: []string{"x86_64-v1"}}
}

// goodValues are accepted; later ones see what earlier ones set.
var goodValues = []NameValue{
	{"keep-going", "yes"}, {"fallback", "1"}, {"build-keep-log", "no"}, {"substitute", "0"}, {"keep-failed", "true"},
	{"max-jobs", "17"}, {"cores", "4k"}, {"timeout", "-5k"}, {"max-silent-time", "+7"}, {"log-lines", "007"},
	{"min-free", "2G"}, {"max-free", "1T"}, {"gc-reserved-space", "-1M"}, {"max-build-log-size", "18446744073709551615"},
	{"sandbox", "relaxed"}, {"access-tokens", "a=1 b=2 a=3 junk"}, {"impure-env", "B=x=y A="},
	{"extra-impure-env", "B=z C=1"}, {"system-features", "b a b"}, {"extra-system-features", "kvm a"},
	{"sandbox-paths", "/b/c /b-d=/x? /b? /b/c=/q"}, {"extra-sandbox-paths", "/b=/other /new"},
	{"netrc-file", "/a/../b//c/"}, {"build-dir", "/x/./y/"}, {"diff-hook", ""}, {"ssl-cert-file", ""},
	{"substituters", "http://a.b/x?priority=3&want-mass-query=true auto daemon local local?root=/x /foo/bar " +
		"http://foo:80 ssh://u@h s3://bucket?region=a http://EX.com/a%20b/+,;= http://[::1]:9/ ssh://::1 " +
		"ssh://fe80::1%eth0 file:/a file:///a localhost:30 unix:/x daemon?x=1 ssh://u:p@h:022/x file: " +
		"http://h/a%2Fb%2fc http://h/%41?q=%20a&q=b&novalue http://h?store=/a+b http://h:"},
	{"extra-substituters", "https://more"}, {"trusted-substituters", "http://b http://a auto https://a http://a local daemon"},
	{"extra-trusted-binary-caches", "http://aa auto"}, {"build-hook", "a  b"}, {"extra-build-hook", "c"},
	{"external-builders", `[{"systems":["b","a","b"],"program":"/p","args":["<x>"]}]`},
	{"allowed-users", "a a"}, {"extra-allowed-users", "@wheel"}, {"allowed-impure-host-deps", "/b-c /b/c /a"},
	{"ignored-acls", ""}, {"eval-profiler", "flamegraph"}, {"lint-url-literals", "fatal"}, {"store", "/tmp/x?y=1"},
	{"warn-short-path-literals", "true"}, {"extra-nix-path", "a b"}, {"extra-allowed-uris", "x"}, {"extra-allowed-uris", "y"},
	{"extra-access-tokens", "a=9 c=4"}, {"tarball-ttl", "1K"}, {"start-id", "4294967295"}, {"use-registries", "false"},
	{"commit-lockfile-summary", "hello world"}, {"eval-profile-file", "x/../y"}, {"json-log-path", "/a"},
}

var badValues = []NameValue{
	{"daemon-log-format", "xml"}, {"daemon-log-level", "loud"}, {"metrics-listen-address", "host"}, {"audit-log-file", "rel"},
	{"keep-going", "maybe"}, {"build-fallback", "TRUE"}, {"accept-flake-config", ""}, {"max-jobs", "4K"},
	{"max-jobs", ""}, {"max-jobs", "-1"}, {"build-max-jobs", "Auto"}, {"cores", "4x"}, {"cores", ""}, {"cores", "-1"},
	{"cores", "4294967296"}, {"cores", "1_0"}, {"cores", "0x10"}, {"cores", "K"}, {"timeout", "-+5"},
	{"timeout", "9223372036854775808"}, {"min-free", "18446744073709551616"}, {"log-lines", "1 2"}, {"sandbox", "yes"},
	{"netrc-file", "foo"}, {"netrc-file", ""}, {"build-dir", "rel\"x"}, {"substituters", "b"}, {"store", "nope"},
	{"store", "http://a:0/"}, {"store", "http://a:99999/"}, {"store", "file://host/x"}, {"store", "http://a b"},
	{"store", "http://[zz]/"}, {"trusted-substituters", "auto b"}, {"eval-profiler", "x"}, {"lint-url-literals", "x"},
	{"eval-profile-file", ""}, {"http-connections", "1.5"},
}

func TestTableSortedAndUnique(t *testing.T) {
	if !slices.IsSortedFunc(table, func(a, b row) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("table is not sorted by name")
	}
	seen := map[string]bool{}
	for _, r := range table {
		for _, name := range append(slices.Clone(r.Aliases), r.Name) {
			if seen[name] {
				t.Errorf("%s stands twice", name)
			}
			seen[name] = true
		}
	}
	if len(table) > 64*len(overrides{}) {
		t.Errorf("%d rows do not fit into the override bits", len(table))
	}
}

// TestRenderedDefaultsParse feeds every default to its own parser and expects the same back: a row wired to the
// wrong field or type shows here.
func TestRenderedDefaultsParse(t *testing.T) {
	s := Defaults(testHost())
	s.ExperimentalFeatures = allFeatures()
	s.DiffHook, s.BuildDir = "/hook", "/build-dir"
	for info := range s.Infos() {
		before, _ := s.Get(info.Name)
		c := s.Clone()
		if err := c.Set(info.Name, before); err != nil {
			t.Errorf("%s: %v", info.Name, err)
		}
		if after, _ := c.Get(info.Name); after != before {
			t.Errorf("%s: %q became %q", info.Name, before, after)
		}
	}
}

// TestEachRowHasItsOwnPlace sets one setting at a time and expects exactly that one to change.
func TestEachRowHasItsOwnPlace(t *testing.T) {
	base := Defaults(testHost())
	base.ExperimentalFeatures = allFeatures()
	for info := range base.Infos() {
		if info.Name == "warn-short-path-literals" || info.Name == "experimental-features" {
			continue
		}
		c, old := base.Clone(), ""
		old, _ = base.Get(info.Name)
		changed := false
		for _, v := range []string{"true", "false", "relaxed", "7", "/p/q", "flamegraph", "warn", "human", "host:1", "k=v", `[{"systems":[],"program":"x","args":[]}]`} {
			if err := c.Set(info.Name, v); err == nil {
				if now, _ := c.Get(info.Name); now != old {
					changed = true
					break
				}
			}
		}
		if !changed {
			t.Errorf("%s: no value changed it", info.Name)
		}
		for other := range base.Infos() {
			a, _ := base.Get(other.Name)
			b, _ := c.Get(other.Name)
			if other.Name != info.Name && a != b {
				t.Errorf("setting %s changed %s from %q to %q", info.Name, other.Name, a, b)
			}
		}
	}
}

func TestBadValues(t *testing.T) {
	s := Defaults(testHost())
	s.ExperimentalFeatures = allFeatures()
	before := shownBy(s)
	for _, v := range badValues {
		var usage *UsageError
		err := s.Set(v.Name, v.Value)
		// A relative path is the one refusal that upstream does not count as a usage error.
		relative := err != nil && strings.HasPrefix(err.Error(), "not an absolute path: ")
		if !errors.As(err, &usage) && !relative {
			t.Errorf("%s = %q: %v", v.Name, v.Value, err)
		}
	}
	if diff := cmp.Diff(before, shownBy(s)); diff != "" {
		t.Errorf("refused values had an effect:\n%s", diff)
	}
}

func TestTexts(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"keep-going", "maybe", "Boolean setting 'keep-going' has invalid value 'maybe'"},
		{"build-cores", "4x", "setting 'cores' has invalid value '4x'"},
		{"cores", "4294967296", "setting 'cores' has invalid value '4294967296'"},
		{"cores", "4G", "setting 'cores' has invalid value '4G'"},
		{"max-jobs", "x", "configuration setting 'max-jobs' should be 'auto' or an integer"},
		{"sandbox", "x", "option 'sandbox' has invalid value 'x'"},
		{"netrc-file", "", "setting 'netrc-file' is a path and paths cannot be empty"},
		{"netrc-file", "x", `not an absolute path: "x"`},
		{"substituters", "x", "Cannot parse Nix store 'x'"},
		{"no-such", "x", "unknown setting 'no-such'"},
		{"extra-cores", "1", "unknown setting 'extra-cores'"},
		{"external-builders", `[{"systems":["a"],"args":[]}]`,
			`parsing setting 'external-builders': Expected JSON object to contain key 'program' but it doesn't: {"args":[],"systems":["a"]}`},
		{"extra-external-builders", "[]", "unknown setting 'extra-external-builders'"},
		{"darwin-log-sandbox-violations", "true", "unknown setting 'darwin-log-sandbox-violations'"},
	} {
		if err := Defaults(testHost()).Set(c.name, c.value); err == nil || err.Error() != c.want {
			t.Errorf("%s = %s: %v, want %s", c.name, c.value, err, c.want)
		}
	}
}

func TestParseIntegerTexts(t *testing.T) {
	for value, want := range map[string]string{
		"4x": "invalid unit specifier 'X'", "abc": "invalid unit specifier 'C'", "": "'' is not an integer",
		"-1": "'-1' is not an integer", "1.5": "'1.5' is not an integer", "K": "'' is not an integer",
	} {
		if _, err := ParseInteger(value, 64); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", value, err, want)
		}
	}
}

func TestFeatures(t *testing.T) {
	s := Defaults(testHost())
	var warnings []string
	warn := func(w string) { warnings = append(warnings, w) }
	for _, v := range []NameValue{
		{"auto-allocate-uids", "not even a boolean"},
		{"experimental-features", "flakes foo no-url-literals"},
		{"extra-experimental-features", "auto-allocate-uids"},
		{"auto-allocate-uids", "true"},
	} {
		if err := s.SetWarn(v.Name, v.Value, warn); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"Ignoring setting 'auto-allocate-uids' because experimental feature 'auto-allocate-uids' is not enabled",
		"unknown experimental feature 'foo'",
		"experimental feature 'no-url-literals' has been stabilized and renamed; use 'lint-url-literals = fatal' setting instead",
	}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Error(diff)
	}
	if got := s.ExperimentalFeatures.String(); got != "auto-allocate-uids fetch-tree flakes" || !s.AutoAllocateUIDs {
		t.Errorf("features %q, auto-allocate-uids %v", got, s.AutoAllocateUIDs)
	}
}

func TestRequire(t *testing.T) {
	set := Features(Flakes)
	if err := errors.Join(set.Require(Flakes), set.Require(NoFeature)); err != nil {
		t.Error(err)
	}
	for want, err := range map[string]error{
		"experimental Nix feature 'ca-derivations' is disabled; add '--extra-experimental-features ca-derivations' to enable it":                                           set.Require(CADerivations),
		"experimental Nix feature 'dynamic-derivations' is disabled (text-hashed derivation output); add '--extra-experimental-features dynamic-derivations' to enable it": set.Require(DynamicDerivations, "text-hashed derivation output"),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestHostDefaults(t *testing.T) {
	linux := Defaults(testHost())
	if linux.Sandbox != SandboxTrue || linux.StartID != 0x34000000 || linux.BuildUsersGroup != "nixbld" ||
		!slices.Equal(linux.SystemFeatures, []string{"benchmark", "big-parallel", "kvm", "nixos-test", "uid-range"}) ||
		!slices.Equal(linux.ExtraPlatforms, []string{"i686-linux", "x86_64-v1-linux"}) {
		t.Errorf("linux: %+v", linux)
	}
	mac := Defaults(Environment{System: "aarch64-darwin", Rosetta: true, AppleVirt: true, KVM: true})
	if mac.Sandbox != SandboxFalse || mac.StartID != 56930 || mac.IDCount != 128 || !mac.UseCaseHack ||
		mac.BuildUsersGroup != "" || len(mac.SandboxPaths) != 7 || !slices.Equal(mac.ExtraPlatforms, []string{"x86_64-darwin"}) ||
		!slices.Equal(mac.SystemFeatures, []string{"apple-virt", "benchmark", "big-parallel", "nixos-test"}) {
		t.Errorf("darwin: %+v", mac)
	}
	if _, ok := mac.Get("filter-syscalls"); ok {
		t.Error("filter-syscalls exists on darwin")
	}
	wsl := Defaults(Environment{System: "x86_64-linux", WSL1: true})
	if wsl.UseSQLiteWAL || len(wsl.ExtraPlatforms) != 0 || wsl.RequireDropSupplementary {
		t.Errorf("wsl: %+v", wsl)
	}
	vars := Defaults(Environment{System: "x86_64-linux", ConfDir: "/c", RemoteSet: true, Remote: "daemon",
		RemoteSystemsSet: true, RemoteSystems: []string{"/a", "/b"}, IgnoreSymlinkStore: true,
		SSLCertFileOverride: "/ssl", SystemSSLCert: "/sys", BuildHook: []string{"hook"}})
	got := []string{vars.Store, vars.Builders, vars.SSLCertFile, vars.NetrcFile, vars.BuildHook[0], renderBool(vars.AllowSymlinkedStore)}
	if diff := cmp.Diff([]string{"daemon", "@/a\n@/b", "/ssl", "/c/netrc", "hook", "true"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestComputedValues(t *testing.T) {
	s := Defaults(Environment{System: "x86_64-linux", CPUs: 8, CPULimit: 3})
	if s.EffectiveCores() != 3 || s.TotalJobs() != 8 {
		t.Errorf("cores %d, total jobs %d", s.EffectiveCores(), s.TotalJobs())
	}
	s.Cores, s.MaxJobs = 2, 20
	if s.EffectiveCores() != 2 || s.TotalJobs() != 20 {
		t.Errorf("cores %d, total jobs %d", s.EffectiveCores(), s.TotalJobs())
	}
	if err := errors.Join(s.Set("max-total-jobs", "5"), s.Set("max-jobs", "auto")); err != nil || s.TotalJobs() != 5 || s.MaxJobs != 8 {
		t.Errorf("total jobs %d, max-jobs %d, %v", s.TotalJobs(), s.MaxJobs, err)
	}
	for in, want := range map[Seconds]time.Duration{-1: 0, 0: 0, 5: 5 * time.Second, math.MaxInt64: math.MaxInt64} {
		if got := in.Duration(); got != want {
			t.Errorf("%d seconds: %v, want %v", in, got, want)
		}
	}
}

func TestCloneIsIndependent(t *testing.T) {
	s := Defaults(testHost())
	if err := errors.Join(s.Set("access-tokens", "a=1"), s.Set("substituters", "http://a")); err != nil {
		t.Fatal(err)
	}
	before := shownBy(s)
	c := s.Clone()
	for _, v := range []NameValue{{"extra-access-tokens", "b=2"}, {"extra-substituters", "http://b"}, {"eval-cache", "false"}} {
		if err := c.Set(v.Name, v.Value); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, shownBy(s)); diff != "" {
		t.Errorf("the clone changed its origin:\n%s", diff)
	}
	if got, _ := c.Get("access-tokens"); got != " a=1 b=2" {
		t.Errorf("access-tokens of the clone: %q", got)
	}
}

// TestEmptySettings: an empty value is usable, if of little use.
func TestEmptySettings(t *testing.T) {
	var s Settings
	if err := s.Set("max-jobs", "auto"); err != nil || s.MaxJobs != 1 || s.EffectiveCores() != 1 || s.NixConfig() == "" {
		t.Errorf("max-jobs %d, cores %d, %v", s.MaxJobs, s.EffectiveCores(), err)
	}
}

func TestOverridden(t *testing.T) {
	s := Defaults(testHost())
	_ = s.Set("cores", "1")
	s.ResetOverridden()
	_ = s.Set("build-timeout", "1")
	_ = s.Set("keep-going", "bad")
	if s.Overridden("cores") || !s.Overridden("timeout") || s.Overridden("keep-going") {
		t.Error("wrong settings are marked as overridden")
	}
}

func TestNixConfig(t *testing.T) {
	text := Defaults(testHost()).NixConfig()
	for _, want := range []string{"\ncores = 0\n", "\ntrusted-users = root\n", "\nsubstituters = https://cache.nixos.org/\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, no := range []string{"max-total-jobs", "max-build-memory", "max-build-processes", "max-connections", "max-request-memory", "http3", "nix-path", "impure-env", "build-hook-kill-timeout"} {
		if strings.Contains(text, "\n"+no+" ") {
			t.Errorf("%s is in it", no)
		}
	}
}

func FuzzSet(f *testing.F) {
	for _, v := range append(slices.Clone(goodValues), badValues...) {
		f.Add(v.Name, v.Value)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		s := Defaults(testHost())
		s.ExperimentalFeatures = allFeatures()
		if err := s.Set(name, value); err != nil {
			return
		}
		info, ok := s.Lookup(strings.TrimPrefix(name, "extra-"))
		// What is rendered of a store reference has a fuzz target of its own.
		if !ok || slices.Contains([]string{"store", "substituters", "trusted-substituters"}, info.Name) {
			return
		}
		if slices.ContainsFunc(s.SandboxPaths, func(p SandboxPath) bool { return p.Target == "" }) {
			return
		}
		name = info.Name
		shown, _ := s.Get(name)
		if err := s.Set(name, shown); err != nil {
			t.Fatalf("%s: %q is shown as %q, which is refused: %v", name, value, shown, err)
		}
		if again, _ := s.Get(name); again != shown {
			t.Fatalf("%s: %q is shown as %q, then as %q", name, value, shown, again)
		}
	})
}
