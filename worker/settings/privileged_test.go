package settings

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrivileged(t *testing.T) {
	base := Defaults(Environment{})
	base.Substituters = []string{"https://cache.example"}
	for name, tt := range map[string]struct {
		set  []NameValue
		want []string
	}{
		"nothing": {},
		"switches and numbers": {[]NameValue{{"require-sigs", "false"}, {"build-users-group", "x"}, {"extra-platforms", "a b"}, {"min-free", "17"}},
			[]string{"build-users-group", "extra-platforms", "min-free = 17", "require-sigs = false"}},
		"an alias counts once":   {[]NameValue{{"build-cores", "7"}, {"cores", "7"}}, []string{"cores = 7"}},
		"as it was":              {[]NameValue{{"substituters", "https://cache.example"}, {"fallback", "false"}}, nil},
		"what everybody may":     {[]NameValue{{"timeout", "5"}, {"connect-timeout", "5"}, {"builders", ""}}, nil},
		"what nobody may":        {[]NameValue{{"trusted-users", "eve"}, {"no-such-setting", "1"}}, nil},
		"without what is secret": {[]NameValue{{"substituters", "https://me:secret@cache.example/x?token=secret s3://b?secret=secret"}, {"netrc-file", "/secret"}, {"impure-env", "A=secret"}, {"secret-key-files", "/secret"}}, []string{"netrc-file", "secret-key-files", "substituters = https://cache.example/x s3://b"}},
	} {
		opts := ClientOptions{Overrides: tt.set, MaxBuildJobs: 1, UseSubstitutes: true}
		s, _, err := base.ApplyClient(opts, true)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.want, s.Privileged(base, opts)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestShownReference(t *testing.T) {
	for word, want := range map[string]string{
		"auto": "auto", "/nix/store": "/nix/store", "daemon?x=y": "daemon",
		"https://u:p@h:8/a/b?c=d": "https://h:8/a/b", "https://u@h": "https://h", "https://u:p/q@h/x": "https://h/x",
		"s3://bucket?profile=x": "s3://bucket", "file:///a@b": "file://b",
	} {
		if got := ShownReference(word); got != want {
			t.Errorf("%s: got %s, want %s", word, got, want)
		}
	}
}
