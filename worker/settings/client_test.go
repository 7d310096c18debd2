package settings

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func clientBase(t *testing.T) *Settings {
	t.Helper()
	s := Defaults(testHost())
	for _, v := range []NameValue{
		{"substituters", "https://cache.nixos.org/ http://own"}, {"trusted-substituters", "http://ok/ daemon"},
	} {
		if err := s.Set(v.Name, v.Value); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

const pluginWarning = "Ignoring the client-specified plugin-files.\n" +
	"The client specifying plugins to the daemon never made sense, and was removed in Nix >=2.14."

func untrustedSubstituter(uri string) string {
	return "ignoring untrusted substituter '" + uri + "', you are not a trusted user.\n" +
		"Run `man nix.conf` for more information on the `substituters` configuration option."
}

func restricted(name string) string {
	return "ignoring the client-specified setting '" + name +
		"', because it is a restricted setting and you are not a trusted user"
}

// TestOverrides has one row per rule: what a client sends, and what trusted and untrusted ones get.
func TestOverrides(t *testing.T) {
	type outcome struct {
		value   string
		warning string
		level   Verbosity
	}
	same := func(o outcome) [2]outcome { return [2]outcome{o, o} }
	for _, c := range []struct {
		send  NameValue
		show  string
		wants [2]outcome // trusted, untrusted
	}{
		{NameValue{"timeout", "5"}, "timeout", same(outcome{value: "5"})},
		{NameValue{"max-silent-time", "6"}, "max-silent-time", same(outcome{value: "6"})},
		{NameValue{"build-poll-interval", "7"}, "build-poll-interval", same(outcome{value: "7"})},
		{NameValue{"connect-timeout", "8"}, "connect-timeout", same(outcome{value: "8"})},
		{NameValue{"build-timeout", "5"}, "timeout", [2]outcome{{value: "5"}, {"0", restricted("build-timeout"), LevelWarn}}},
		{NameValue{"builders", ""}, "builders", same(outcome{value: ""})},
		{NameValue{"builders", "ssh://x"}, "builders",
			[2]outcome{{value: "ssh://x"}, {"@/etc/nix/machines", restricted("builders"), LevelWarn}}},
		{NameValue{"sandbox", "false"}, "sandbox", [2]outcome{{value: "false"}, {"true", restricted("sandbox"), LevelWarn}}},
		{NameValue{"netrc-file", "/x"}, "netrc-file",
			[2]outcome{{value: "/x"}, {"/etc/nix/netrc", restricted("netrc-file"), LevelWarn}}},
		{NameValue{"trusted-users", "*"}, "trusted-users",
			[2]outcome{{value: "root"}, {"root", restricted("trusted-users"), LevelWarn}}},
		{NameValue{"max-total-jobs", "9"}, "max-total-jobs",
			[2]outcome{{value: "0"}, {"0", restricted("max-total-jobs"), LevelWarn}}},
		{NameValue{"use-case-hack", "true"}, "use-case-hack",
			[2]outcome{{value: "false"}, {"false", restricted("use-case-hack"), LevelWarn}}},
		{NameValue{"pure-eval", "true"}, "pure-eval",
			[2]outcome{{value: "false"}, {"false", restricted("pure-eval"), LevelWarn}}},
		{NameValue{"no-such", "1"}, "cores", [2]outcome{{value: "0"}, {"0", restricted("no-such"), LevelWarn}}},
		{NameValue{"ssh-auth-sock", "/x"}, "cores", same(outcome{value: "0"})},
		{NameValue{"plugin-files", "/x"}, "plugin-files", same(outcome{"", pluginWarning, LevelWarn})},
		{NameValue{"experimental-features", "flakes"}, "experimental-features",
			same(outcome{"", "Ignoring the client-specified experimental features", LevelDebug})},
		{NameValue{"experimental-features", "nonsense"}, "experimental-features", same(outcome{value: ""})},
		{NameValue{"extra-experimental-features", "flakes"}, "experimental-features",
			[2]outcome{{value: ""}, {"", restricted("extra-experimental-features"), LevelWarn}}},
		{NameValue{"timeout", "x"}, "timeout", same(outcome{"0", "setting 'timeout' has invalid value 'x'", LevelWarn})},
		{NameValue{"substituters", "http://own http://ok"}, "substituters",
			[2]outcome{{value: "http://own http://ok"}, {value: "http://own http://ok/"}}},
		{NameValue{"binary-caches", "https://cache.nixos.org"}, "substituters",
			[2]outcome{{value: "https://cache.nixos.org"}, {value: "https://cache.nixos.org/"}}},
		{NameValue{"substituters", "daemon http://bad?priority=1"}, "substituters",
			[2]outcome{{value: "daemon http://bad?priority=1"}, {"daemon", untrustedSubstituter("http://bad?priority=1"), LevelWarn}}},
		{NameValue{"substituters", "http://own/"}, "substituters",
			[2]outcome{{value: "http://own/"}, {"", untrustedSubstituter("http://own/"), LevelWarn}}},
		{NameValue{"substituters", "http://own nope"}, "substituters",
			same(outcome{"https://cache.nixos.org/ http://own", "Cannot parse Nix store 'nope'", LevelWarn})},
		{NameValue{"extra-substituters", "http://x"}, "substituters",
			[2]outcome{{value: "https://cache.nixos.org/ http://own http://x"},
				{"https://cache.nixos.org/ http://own", restricted("extra-substituters"), LevelWarn}}},
		{NameValue{"auto-allocate-uids", "true"}, "auto-allocate-uids",
			[2]outcome{{"false", "Ignoring setting 'auto-allocate-uids' because experimental feature 'auto-allocate-uids' is not enabled", LevelWarn},
				{"false", restricted("auto-allocate-uids"), LevelWarn}}},
	} {
		for i, trusted := range []bool{true, false} {
			base := clientBase(t)
			before := shownBy(base)
			got, warnings, err := base.ApplyClient(ClientOptions{Overrides: []NameValue{c.send}}, trusted)
			want := c.wants[i]
			value, _ := got.Get(c.show)
			var wantWarnings []Warning
			if want.warning != "" {
				ignored := strings.HasPrefix(strings.ToLower(want.warning), "ignoring ")
				wantWarnings = []Warning{{want.level, want.warning, !ignored}}
			}
			if err != nil {
				t.Errorf("%s = %s, trusted %v: %v", c.send.Name, c.send.Value, trusted, err)
			}
			if value != want.value || !cmp.Equal(warnings, wantWarnings) {
				t.Errorf("%s = %s, trusted %v: %s = %q, want %q\nwarnings %v\nwant %v",
					c.send.Name, c.send.Value, trusted, c.show, value, want.value, warnings, wantWarnings)
			}
			if diff := cmp.Diff(before, shownBy(base)); diff != "" {
				t.Errorf("%s changed the base:\n%s", c.send.Name, diff)
			}
		}
	}
}

func TestFixedFieldsCountForEverybody(t *testing.T) {
	opts := ClientOptions{KeepFailed: true, KeepGoing: true, TryFallback: true, Verbosity: 99, MaxBuildJobs: 3,
		MaxSilentTime: 4, VerboseBuild: 7, BuildCores: 5, UseSubstitutes: false}
	for _, trusted := range []bool{true, false} {
		s, warnings, err := clientBase(t).ApplyClient(opts, trusted)
		if err != nil || !s.KeepFailed || !s.KeepGoing || !s.Fallback || s.Verbosity != LevelVomit || s.MaxJobs != 3 ||
			s.MaxSilentTime != 4 || s.VerboseBuild || s.Cores != 5 || s.Substitute || len(warnings) != 0 {
			t.Errorf("trusted %v: %+v, warnings %v", trusted, s, warnings)
		}
	}
}

// TestOverrideOrder: overrides act in the order of their names, the first of equal names counts, and the fixed field
// comes before the override of the same setting.
func TestOverrideOrder(t *testing.T) {
	s, warnings, err := clientBase(t).ApplyClient(ClientOptions{MaxSilentTime: 1, Overrides: []NameValue{
		{"timeout", "1"}, {"max-silent-time", "9"}, {"timeout", "2"}, {"sandbox", "false"}, {"cores", "1"},
	}}, false)
	want := []Warning{{LevelWarn, restricted("cores"), false}, {LevelWarn, restricted("sandbox"), false}}
	if err != nil || s.Timeout != 1 || s.MaxSilentTime != 9 || !cmp.Equal(warnings, want) {
		t.Errorf("timeout %d, max-silent-time %d, warnings %v", s.Timeout, s.MaxSilentTime, warnings)
	}
}

// TestTrustIsNotSelfMade: an untrusted client cannot widen what it may choose from by asking twice.
func TestTrustIsNotSelfMade(t *testing.T) {
	s, _, _ := clientBase(t).ApplyClient(ClientOptions{Overrides: []NameValue{{"substituters", "http://ok"}}}, false)
	s, warnings, err := s.ApplyClient(ClientOptions{Overrides: []NameValue{
		{"trusted-substituters", "http://evil"}, {"substituters", "http://evil"}}}, false)
	if err != nil || len(s.Substituters) != 0 || len(warnings) != 2 {
		t.Errorf("substituters %q, warnings %v", s.Substituters, warnings)
	}
}

// TestOverrideThatFails: what is no usage error ends the request; what came before it in the order of names counts.
func TestOverrideThatFails(t *testing.T) {
	send := ClientOptions{Overrides: []NameValue{{"timeout", "9"}, {"diff-hook", "relative"}, {"cores", "5"}}}
	s, warnings, err := clientBase(t).ApplyClient(send, true)
	if err == nil || err.Error() != `not an absolute path: "relative"` {
		t.Errorf("got %v", err)
	}
	if s.Cores != 5 || s.Timeout != 0 || s.DiffHook != "" || len(warnings) != 0 {
		t.Errorf("cores %d, timeout %d, diff-hook %q, warnings %v", s.Cores, s.Timeout, s.DiffHook, warnings)
	}
	// Who may not set it anyhow is only told so.
	if _, warnings, err := clientBase(t).ApplyClient(send, false); err != nil || len(warnings) != 2 {
		t.Errorf("untrusted: warnings %v, %v", warnings, err)
	}
}

func BenchmarkApplyClient(b *testing.B) {
	base := Defaults(testHost())
	opts := ClientOptions{Overrides: []NameValue{{"timeout", "5"}, {"sandbox", "false"}}}
	b.ReportAllocs()
	for b.Loop() {
		base.ApplyClient(opts, true)
	}
}
