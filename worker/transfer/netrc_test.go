package transfer

import (
	"strings"
	"testing"
)

func TestNetrc(t *testing.T) {
	const text = `# machine commented.org login no password no
machine a.org login alice password secret
machine b.org
	login	"bo b" password "p\"w\\\n"
	account ignored
machine c.org login first password 1 machine c.org login second password 2
macdef init
machine d.org login macro password macro

machine e.org password only
machine f.org login nopassword
machine login login machine password password
`
	for _, tt := range []struct {
		host, login, want string
	}{
		{"a.org", "", "alice:secret"}, {"A.ORG", "", "alice:secret"}, {"b.org", "", "bo b:p\"w\\\n"},
		{"c.org", "", "first:1"}, {"c.org", "second", "second:2"}, {"c.org", "third", "none"}, {"d.org", "", "none"},
		{"commented.org", "", "none"}, {"e.org", "", ":only"}, {"e.org", "me", ":only"}, {"f.org", "", "nopassword:"},
		{"login", "", "machine:password"}, {"org", "", "none"}, {"sub.a.org", "", "none"}, {"", "", "none"},
	} {
		got := "none"
		if c, ok := lookupNetrc(text, tt.host, tt.login); ok {
			got = c.user + ":" + c.password
		}
		if got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.host, tt.login, got, tt.want)
		}
	}
	if c, ok := lookupNetrc(text+" default login any password thing", "z.org", ""); !ok || c.user != "any" || c.password != "thing" {
		t.Errorf("default: %v, %v", c, ok)
	}
}

// No host gets what an entry for another one says, however the text is.
func FuzzNetrc(f *testing.F) {
	for _, seed := range []string{"machine a.org login alice password secret", "default login x password y", "machine", "machine \"a.org",
		"macdef x\nmachine a.org\n\nmachine a.org login \"a\\", "# x", "login x machine a.org", "machine a.org login l machine b.org password p"} {
		f.Add(seed, "a.org", "")
		f.Add(seed, "b.org", "l")
	}
	f.Fuzz(func(t *testing.T, text, host, login string) {
		c, ok := lookupNetrc(text, host, login)
		if !ok {
			return
		}
		if login != "" && c.hasUser && c.user != login {
			t.Errorf("asked for login %q, got %q", login, c.user)
		}
		lower := strings.ToLower(text)
		if !strings.Contains(lower, "default") && !strings.Contains(lower, "machine") && !strings.Contains(text, `"`) {
			t.Errorf("found credentials in %q, which has no entry", text)
		}
	})
}
