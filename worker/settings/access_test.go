package settings

import (
	"strings"
	"testing"
)

// sample gives a value that differs from what a setting has, if it takes one.
func sample(t *testing.T, base *Settings, name string) (string, bool) {
	t.Helper()
	old, _ := base.Get(name)
	for _, v := range []string{"true", "false", "relaxed", "7", "/p/q", "flamegraph", "warn", "k=v", "http://x",
		"ca-derivations", `[{"systems":[],"program":"x","args":[]}]`} {
		c := base.Clone()
		if c.Set(name, v) != nil {
			continue
		}
		if now, _ := c.Get(name); now != old {
			return v, true
		}
	}
	return "", false
}

// Whatever untrusted clients send, by any name that a setting has, nothing but the few harmless ones changes; and of
// those who are trusted nothing that is the daemon's own.
func TestWhoMayOverride(t *testing.T) {
	base := Defaults(testHost())
	base.ExperimentalFeatures = allFeatures()
	everybody := map[string]bool{"timeout": true, "max-silent-time": true, "build-poll-interval": true, "connect-timeout": true}
	// What a client asks for beyond what the daemon has is taken out of these, which is a change of its own.
	filtered := map[string]bool{"substituters": true, "binary-caches": true}
	settable := 0
	for info := range base.Infos() {
		value, ok := sample(t, base, info.Name)
		if !ok {
			continue
		}
		old, _ := base.Get(info.Name)
		names := append([]string{info.Name}, info.Aliases...)
		if info.Appendable {
			names = append(names, "extra-"+info.Name)
		}
		for _, name := range names {
			for _, trusted := range []bool{true, false} {
				// The fixed fields repeat what the daemon has, so that the override alone is seen.
				s, warnings, err := base.ApplyClient(ClientOptions{
					MaxBuildJobs: uint64(base.MaxJobs), BuildCores: uint64(base.Cores), UseSubstitutes: base.Substitute,
					Overrides: []NameValue{{name, value}},
				}, trusted)
				if err != nil {
					t.Errorf("%s = %s, trusted %v: %v", name, value, trusted, err)
					continue
				}
				now, _ := s.Get(info.Name)
				reachable := info.Group == GroupStore || info.Group == GroupFileTransfer
				may := trusted && reachable || everybody[name]
				if name == "experimental-features" || name == "plugin-files" {
					may = false
				}
				if changed := now != old; changed != may && !filtered[name] {
					t.Errorf("%s = %s, trusted %v: changed %v, want %v", name, value, trusted, changed, may)
				}
				if !may && !trusted && !filtered[name] && len(warnings) != 1 {
					t.Errorf("%s = %s from an untrusted client: warnings %v", name, value, warnings)
				}
				if may {
					settable++
				}
			}
		}
	}
	if settable < 50 {
		t.Errorf("only %d overrides had an effect: the test looks at nothing", settable)
	}
}

// Later assignments win over earlier ones, by whatever name; `extra-` adds to what is there.
func TestPrecedence(t *testing.T) {
	for _, tt := range []struct {
		name string
		sets []NameValue
		show string
		want string
	}{
		{"the last", []NameValue{{"cores", "1"}, {"cores", "2"}}, "cores", "2"},
		{"alias over name", []NameValue{{"max-jobs", "1"}, {"build-max-jobs", "2"}}, "max-jobs", "2"},
		{"name over alias", []NameValue{{"build-max-jobs", "2"}, {"max-jobs", "1"}}, "max-jobs", "1"},
		{"added", []NameValue{{"trusted-users", "a"}, {"extra-trusted-users", "b"}}, "trusted-users", "a b"},
		{"added to the default", []NameValue{{"extra-trusted-users", "b"}}, "trusted-users", "root b"},
		{"set after adding", []NameValue{{"extra-trusted-users", "b"}, {"trusted-users", "a"}}, "trusted-users", "a"},
		{"set to nothing", []NameValue{{"trusted-users", ""}}, "trusted-users", ""},
		{"what does not parse leaves it", []NameValue{{"cores", "3"}, {"cores", "x"}}, "cores", "3"},
		{"a set keeps one of each", []NameValue{{"system-features", "b a b"}, {"extra-system-features", "a c"}}, "system-features", "a b c"},
		{"by alias, added", []NameValue{{"trusted-binary-caches", "http://a"}, {"extra-trusted-binary-caches", "http://b"}},
			"trusted-substituters", "http://a http://b"},
		{"a map keeps what it has", []NameValue{{"impure-env", "A=1 B=2"}, {"extra-impure-env", "A=3"}}, "impure-env", " A=1 B=2"},
	} {
		s := Defaults(testHost())
		s.ExperimentalFeatures = allFeatures()
		for _, nv := range tt.sets {
			_ = s.Set(nv.Name, nv.Value) // some are refused on purpose
		}
		if got, _ := s.Get(tt.show); got != tt.want {
			t.Errorf("%s: %s = %q, want %q", tt.name, tt.show, got, tt.want)
		}
	}
}

// units are numbers with a suffix, at the borders of their types; "" is refused.
var units = []struct{ name, value, want string }{
	{"min-free", "1K", "1024"}, {"min-free", "1k", "1024"}, {"min-free", "1M", "1048576"}, {"min-free", "1G", "1073741824"},
	{"min-free", "1T", "1099511627776"}, {"min-free", "0T", "0"}, {"min-free", "1P", ""}, {"min-free", "1KB", ""}, {"min-free", "1 K", ""},
	{"min-free", "18446744073709551615", "18446744073709551615"}, {"min-free", "18446744073709551616", ""}, {"min-free", "-1", ""},
	{"cores", "4294967295", "4294967295"}, {"cores", "4294967296", ""}, {"cores", "1M", "1048576"},
	{"timeout", "9223372036854775807", "9223372036854775807"}, {"timeout", "-9223372036854775808", "-9223372036854775808"},
	{"timeout", "9223372036854775808", ""}, {"max-jobs", "2K", ""}, {"max-jobs", "2", "2"},
}

func TestUnits(t *testing.T) {
	for _, u := range units {
		s := Defaults(testHost())
		before, _ := s.Get(u.name)
		err := s.Set(u.name, u.value)
		got, _ := s.Get(u.name)
		if u.want == "" && (err == nil || got != before) || u.want != "" && (err != nil || got != u.want) {
			t.Errorf("%s = %s: got %q, %v; want %q", u.name, u.value, got, err, u.want)
		}
	}
	for _, own := range []struct{ name, value, want string }{
		{"max-request-memory", "2G", "2147483648"}, {"max-connections", "2K", "2048"}, {"max-connections-per-user", "9", "9"},
	} {
		s := Defaults(testHost())
		if err := s.Set(own.name, own.value); err != nil {
			t.Error(err)
		}
		if got, _ := s.Get(own.name); got != own.want {
			t.Errorf("%s = %s: got %q", own.name, own.value, got)
		}
		if err := s.Set(own.name, "-1"); err == nil {
			t.Errorf("%s takes a negative number", own.name)
		}
	}
}

// TestUpstreamUnits gives the same numbers to the reference program.
func TestUpstreamUnits(t *testing.T) {
	u := findUpstream(t)
	for _, n := range units {
		out, stderr := u.show(t, n.name+" = "+n.value)
		got := parseShown(out)[n.name]
		if strings.Contains(stderr, "error:") {
			got = ""
		}
		if got != n.want {
			t.Errorf("%s = %s: upstream shows %q, we say %q", n.name, n.value, got, n.want)
		}
	}
}
