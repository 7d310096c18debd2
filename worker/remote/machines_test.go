package remote

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/worker/settings"
)

// show renders a machine in one line.
func show(m *Machine) string {
	text := m.URI + " " + strings.Join(m.Systems, ",") + " " + m.SSHKey + " " + m.describe() + " " + m.HostKey
	return strings.NewReplacer("\x1b[35;1m", "", "\x1b[0m", "").Replace(text)
}

func TestParse(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	inner := write("inner", "b.example # first\n\n # nothing\nc.example - - 2")
	file := write("file", "a.example; @ "+inner+"\n")
	circle := write("circle", "")
	write("circle", "@"+circle)
	for _, test := range []struct {
		builders string
		want     []string
		err      string
	}{
		{"", nil, ""},
		{"nix@scratchy.example", []string{"ssh://nix@scratchy.example sys  ([sys], 1, [], []) "}, ""},
		{"nix@scratchy.example:2222 - - - - - - -", []string{"ssh://nix@scratchy.example:2222 sys  ([sys], 1, [], []) "}, ""},
		{" # a comment\na ; b#; c\n\n;d", []string{
			"ssh://a sys  ([sys], 1, [], []) ", "ssh://b sys  ([sys], 1, [], []) ", "ssh://d sys  ([sys], 1, [], []) "}, ""},
		{"ssh-ng://a\ti686-linux,x86_64-linux\t/key 8 3.5 kvm,big,kvm benchmark SSH+HOST+KEY==", []string{
			"ssh-ng://a i686-linux,x86_64-linux /key ([i686-linux, x86_64-linux], 8, [big, kvm], [benchmark]) SSH+HOST+KEY=="}, ""},
		{"auto; daemon; local; /a/path; unix:///x", []string{"auto sys  ([sys], 1, [], []) ", "daemon sys  ([sys], 1, [], []) ",
			"local sys  ([sys], 1, [], []) ", "local:///a/path sys  ([sys], 1, [], []) ", "unix:///x sys  ([sys], 1, [], []) "}, ""},
		{"@" + file, []string{"ssh://a.example sys  ([sys], 1, [], []) ", "ssh://b.example sys  ([sys], 1, [], []) ", "ssh://c.example sys  ([sys], 2, [], []) "}, ""},
		{"@/no/such/file", nil, ""},
		{"@" + circle, nil, "files of machines name each other in a circle"},
		{"- sys", nil, "bad machine specification: store URL was not found at the first column of a row: '- sys'"},
		{"a - - x", nil, "bad machine specification: failed to convert column #3 in a row: 'a - - x' to 'unsigned int'"},
		{"a - - -1", nil, "bad machine specification: failed to convert column #3 in a row: 'a - - -1' to 'unsigned int'"},
		{"a - - 8 fast", nil, "bad machine specification: failed to convert column #4 in a row: 'a - - 8 fast' to 'float'"},
		{"a - - 8 -3", nil, "speed factor must be >= 0"},
		{"a - - 8 0", []string{"ssh://a sys  ([sys], 8, [], []) "}, ""},
		{"a - - 8 3 - - bad_key", nil, "invalid character in Base64 string: '_'"},
		{"ssh://[a", nil, "Cannot parse Nix store 'ssh://[a'"},
	} {
		machines, err := Parse(test.builders, "sys")
		if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
			t.Errorf("%q: error %v, want %q", test.builders, err, test.err)
			continue
		}
		var got []string
		for _, m := range machines {
			got = append(got, show(m))
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q: %s", test.builders, diff)
		}
	}
}

// TestFits is about systems and features.
func TestFits(t *testing.T) {
	m := &Machine{Systems: []string{"a", "b"}, Supported: []string{"kvm"}, Mandatory: []string{"must"}}
	for _, test := range []struct {
		system   string
		features string
		want     bool
	}{
		{"a", "must", true}, {"b", "kvm must", true}, {"builtin", "must", true},
		{"c", "must", false}, {"a", "", false}, {"a", "kvm", false}, {"a", "must other", false},
	} {
		if got := m.fits(test.system, strings.Fields(test.features)); got != test.want {
			t.Errorf("%s, %s: %v", test.system, test.features, got)
		}
	}
}

func TestBetter(t *testing.T) {
	slow, fast := &Machine{SpeedFactor: 1}, &Machine{SpeedFactor: 4}
	for _, test := range []struct {
		m     *Machine
		load  uint
		other *Machine
		its   uint
		want  bool
	}{
		{fast, 3, slow, 1, true}, {slow, 1, fast, 4, false}, {fast, 4, slow, 1, true}, {slow, 0, fast, 0, false},
		{slow, 0, slow, 1, true}, {slow, 1, slow, 1, false},
	} {
		if got := test.m.better(test.load, test.other, test.its); got != test.want {
			t.Errorf("%+v", test)
		}
	}
}

func TestReference(t *testing.T) {
	machines, err := Parse("ssh://a?compress=true - /key 1 1 x y SE9TVA==; ssh-ng://b?ssh-key=/other - /key; unix:///s - /key; mounted-ssh-ng://c", "sys")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range machines {
		got = append(got, m.reference().String())
	}
	want := []string{"ssh://a?compress=true&ssh-key=/key&base64-ssh-public-host-key=SE9TVA%3D%3D", "ssh-ng://b?ssh-key=/key", "unix:///s", "ssh-ng://c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestReachable has a store of this machine served by ourselves.
func TestReachable(t *testing.T) {
	b := New(Options{StateDir: t.TempDir(), Self: "/bin/self"})
	machines, err := Parse("/a/store - - 1 1 foo bar; ssh://a", "sys")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := b.reachable(machines[0])
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(ref.Params, func(p settings.Param) bool { return p.Name == "remote-store" })
	if ref.Scheme != "ssh-ng" || i < 0 || ref.Params[i].Value != "local:///a/store?system-features=foo%20bar" {
		t.Errorf("%+v", ref)
	}
	if ref, err := b.reachable(machines[1]); err != nil || ref.Scheme != "ssh" {
		t.Errorf("%+v, %v", ref, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a b c 1 2 d e Zg==", "@/dev/null", "a;b\nc # d", "ssh://u@h:1?x=y - - - 1e3", "auto?a=b", "[::1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, builders string) {
		if strings.Contains(builders, "@/") {
			t.Skip("could read any file")
		}
		machines, err := Parse(builders, "sys")
		if err != nil {
			return
		}
		for _, m := range machines {
			if m.SpeedFactor <= 0 || m.URI == "" || !slices.IsSorted(m.Supported) {
				t.Errorf("%+v", m)
			}
		}
	})
}
