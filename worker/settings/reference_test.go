package settings

import (
	"slices"
	"strings"
	"testing"
)

func TestStoreReferences(t *testing.T) {
	for in, want := range map[string]string{
		"": "auto", "auto": "auto", "auto?x=1": "auto?x=1", "daemon": "daemon", "daemon?x=1": "unix://?x=1",
		"local": "local", "local?root=/x": "local://?root=/x", "/foo": "local:///foo", "/a b": "local:///a%20b",
		"http://h/a%2fb/c": "http://h/a%2Fb/c", "ssh://::1": "ssh://[::1]", "ssh://u@::1": "ssh://u@[::1]",
		"ssh://fe80::1%eth0": "ssh://[fe80::1%25eth0]", "http://h?b=2&a=1&b=3": "http://h?a=1&b=2",
	} {
		ref, err := ParseStoreReference(in)
		if err != nil || ref.String() != want {
			t.Errorf("%q: %q, %v; want %q", in, ref, err, want)
		}
		if again, err := ParseStoreReference(want); err != nil || again.Compare(ref) != 0 {
			t.Errorf("%q: %+v and %+v differ: %v", want, again, ref, err)
		}
	}
	if ref, _ := ParseStoreReference("local?root=/x"); true {
		if v, ok := ref.Param("root"); !ok || v != "/x" {
			t.Errorf("root is %q, %v", v, ok)
		}
		if _, ok := ref.Param("none"); ok {
			t.Error("a parameter from nowhere")
		}
	}
}

func FuzzStoreReference(f *testing.F) {
	for _, s := range []string{"auto", "http://u:p@h:1/a%2Fb?x=y&z#f", "ssh://[fe80::1%25e]", "/a/b?c=d", "local?a", "x:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		ref, err := ParseStoreReference(uri)
		_, rest, hasScheme := strings.Cut(uri, ":")
		if err != nil || hasScheme && !strings.HasPrefix(rest, "/") {
			return
		}
		again, err := ParseStoreReference(ref.String())
		if err != nil || again.Compare(ref) != 0 {
			t.Fatalf("%q gives %q gives %q: %v", uri, ref, again, err)
		}
	})
}

// TestReferencesWithoutValue: what upstream ignores in a reference it warns of.
func TestReferencesWithoutValue(t *testing.T) {
	for value, want := range map[string][]string{
		"file:///c?trusted=1&nonsense":             {"nonsense"},
		"file:///c?trusted=1&& http://x?a":         {"", "", "a"},
		"file:///c?trusted=1 file:///d file:///e?": nil,
		"file:///c?trusted=1#fragment&x":           nil,
	} {
		var got, texts []string
		for _, item := range want {
			texts = append(texts, "dubious URI query '"+item+"' is missing equal sign '=', ignoring")
		}
		s := Defaults(Environment{}).Clone()
		if err := s.SetWarn("substituters", value, func(text string) { got = append(got, text) }); err != nil {
			t.Errorf("%s: %v", value, err)
		}
		if !slices.Equal(got, texts) {
			t.Errorf("%s: warned %q, want %q", value, got, texts)
		}
	}
}
