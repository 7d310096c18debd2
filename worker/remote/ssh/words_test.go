package ssh

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplitWords(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
		fails      string
	}{
		{name: "empty"},
		{name: "blanks", text: " a \t b  ", want: []string{"a", "b"}},
		{name: "newline is no blank", text: "a\nb", want: []string{"a\nb"}},
		{name: "single quotes", text: `-o'Proxy Command=x \y'z`, want: []string{`-oProxy Command=x \yz`}},
		{name: "double quotes", text: `"a \$ \x \" 'b'"`, want: []string{`a $ \x " 'b'`}},
		{name: "empty words", text: `'' "" a`, want: []string{"", "", "a"}},
		{name: "backslash", text: `a\ b \\`, want: []string{"a b", `\`}},
		{name: "last backslash", text: `a\`, want: []string{"a"}},
		{name: "open single", text: `a 'b`, fails: "unterminated single quote"},
		{name: "open double", text: `"b\"`, fails: "unterminated double quote"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := SplitWords(tt.text)
			if (err != nil) != (tt.fails != "") || err != nil && err.Error() != tt.fails {
				t.Fatalf("error %v, want %q", err, tt.fails)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("words of %q (-want +got):\n%s", tt.text, diff)
			}
		})
	}
}

func TestParseAuthority(t *testing.T) {
	tests := []struct {
		text, target, fails string
		port                uint16
	}{
		{text: "host", target: "host"},
		{text: "me@host:2222", target: "me@host", port: 2222},
		{text: "me:secret@host", target: "me@host"},
		{text: "me%40home@host", target: "me@home@host"},
		{text: "[fe80::1%25eth0]:22", target: "fe80::1%eth0", port: 22},
		{text: "[::1]", target: "::1"},
		{text: "@host", fails: "invalid SSH authority: '@host': user name must not be empty"},
		{text: "-l@host", fails: "invalid SSH authority: '-l@host': user name '-l' must not start with '-'"},
		{text: "", fails: "invalid SSH authority: '': host name must not be empty"},
		{text: "me@", fails: "invalid SSH authority: 'me@': host name must not be empty"},
		{text: "-oProxyCommand=x", fails: "invalid SSH authority: '-oProxyCommand=x': host name '-oProxyCommand=x' must not start with '-'"},
		{text: "%2Dv", fails: "invalid SSH authority: '%2Dv': host name '-v' must not start with '-'"},
		{text: "a%0Ab", fails: "invalid SSH authority: 'a%0Ab': user and host name must not contain spaces or control characters"},
		{text: "host/path", fails: "invalid URL authority: 'host/path': leftover"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			a, err := ParseAuthority(tt.text)
			if (err != nil) != (tt.fails != "") || err != nil && err.Error() != tt.fails {
				t.Fatalf("error %v, want %q", err, tt.fails)
			}
			if err == nil && (a.target() != tt.target || a.Port != tt.port || a.String() != tt.text) {
				t.Errorf("target %q port %d text %q, want %q %d", a.target(), a.Port, a, tt.target, tt.port)
			}
		})
	}
}
