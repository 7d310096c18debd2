package darwinprofile

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden profiles anew")

// sample is an isolated build with something of everything that is not a choice.
func sample() Options {
	const store = "/nix/store"
	return Options{
		Isolated: true,
		BuildDir: "/nix/var/nix/builds/nix-12-3", TempDir: "/private/tmp", StoreDir: store,
		Outputs:   []string{store + "/q1-hello", store + "/q2-hello-dev"},
		Inputs:    []Path{{store + "/p2-bash", true}, {store + "/p1-builder.sh", false}},
		HostPaths: []Path{{"/bin/sh", false}, {"/usr/lib", true}, {"/System/Library/Frameworks", true}},
		Helper:    "/usr/local/bin/nix-daemon",
	}
}

// combination sets the choices of o from the bits of n, and names them.
func combination(n int) (string, Options) {
	o, names := sample(), []string{}
	choose := func(bit int, name string, set func()) {
		if n&(1<<bit) != 0 {
			names = append(names, name)
			set()
		}
	}
	choose(0, "log", func() { o.LogViolations = true })
	choose(1, "network", func() { o.Network = true })
	choose(2, "local", func() { o.LocalNetwork = true })
	choose(3, "additional", func() { o.Additional = "(allow mach-lookup (global-name \"com.example.service\"))\n" })
	if len(names) == 0 {
		return "isolated", o
	}
	return "isolated-" + strings.Join(names, "-"), o
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func mustProfile(t testing.TB, o *Options) string {
	t.Helper()
	text, err := Profile(o)
	if err != nil {
		t.Fatal(err)
	}
	checkSyntax(t, text)
	return text
}

// checkSyntax holds a text to what the language of profiles demands: parentheses and quotes match, and no rule but
// those that are known to is without conditions.
func checkSyntax(t testing.TB, text string) {
	t.Helper()
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && c == ';':
			i += strings.IndexByte(text[i:], '\n')
		case !inString && c == '(':
			depth++
		case !inString && c == ')':
			depth--
		}
		if depth < 0 {
			t.Fatalf("unbalanced at %q", text[max(0, i-60):i+1])
		}
	}
	if depth != 0 || inString {
		t.Fatalf("unbalanced at the end: depth %d, in string %v", depth, inString)
	}
}

func TestGoldenProfiles(t *testing.T) {
	for n := range 16 {
		name, o := combination(n)
		golden(t, name+".sb", mustProfile(t, &o))
	}
	o := sample()
	o.Isolated = false
	golden(t, "minimal.sb", mustProfile(t, &o))
}

func TestGoldenArguments(t *testing.T) {
	var b strings.Builder
	for n := range 16 {
		name, o := combination(n)
		fmt.Fprintf(&b, "%s:\n", name)
		for _, arg := range Arguments(&o, "/nix/var/nix/builds/nix-12-3.sb", []string{"/usr/local/bin/nix-daemon", "x", "-D"}) {
			fmt.Fprintf(&b, "  %s\n", arg)
		}
	}
	golden(t, "arguments.txt", b.String())
}

// rules are the lines of a profile as "operations condition".
func rules(text string) map[string]bool {
	all := make(map[string]bool)
	operations := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if rest, ok := strings.CutPrefix(line, "(allow "); ok {
			operations = rest
			continue
		}
		if condition, ok := strings.CutPrefix(line, "       "); ok {
			condition = strings.TrimSuffix(condition, ")")
			if strings.Count(condition, "(") > strings.Count(condition, ")") {
				condition += ")"
			}
			all[operations+" "+condition] = true
		}
	}
	return all
}

// TestChoicesOnlyAdd shows that no choice takes away what another gives, and what each alone gives.
func TestChoicesOnlyAdd(t *testing.T) {
	plain := sample()
	base := rules(mustProfile(t, &plain))
	only := map[int][]string{
		1: {"network* (remote ip)", `mach-lookup (global-name "com.apple.trustd")`},
		2: {`network* (remote ip "localhost:*")`, `file-read* (literal "/private/etc/hosts")`},
	}
	for n := range 16 {
		name, o := combination(n)
		have := rules(mustProfile(t, &o))
		for rule := range base {
			if !have[rule] {
				t.Errorf("%s lacks %s", name, rule)
			}
		}
		for bit, own := range only {
			for _, rule := range own {
				if want := n&(1<<bit) != 0; have[rule] != want {
					t.Errorf("%s: %s is %v", name, rule, have[rule])
				}
			}
		}
	}
}

// TestSetIDAlwaysDenied: in no profile can a builder make a program that runs as its user, nor is that taken back.
func TestSetIDAlwaysDenied(t *testing.T) {
	for n := range 17 {
		name, o := combination(n % 16)
		o.Isolated = n < 16
		text := mustProfile(t, &o)
		if strings.Count(text, "(deny file-write-setugid)") != 1 {
			t.Errorf("%s does not deny set-id files", name)
		}
		if strings.LastIndex(text, "(allow file") > strings.Index(text, "(deny file-write-setugid)") {
			t.Errorf("%s: a later rule allows them", name)
		}
	}
}

// TestNothingListed: a rule without conditions would allow everything.
func TestNothingListed(t *testing.T) {
	o := sample()
	o.Outputs, o.Inputs, o.HostPaths = nil, nil, nil
	text := mustProfile(t, &o)
	if strings.Contains(text, "(allow "+visible) {
		t.Errorf("a rule for no paths:\n%s", text)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "(allow file") && strings.HasSuffix(line, ")\n") {
			t.Errorf("rule without conditions: %s", line)
		}
	}
}

func TestManyInputsAreSplit(t *testing.T) {
	o := sample()
	o.Inputs = nil
	for i := range 5000 {
		o.Inputs = append(o.Inputs, Path{fmt.Sprintf("/nix/store/%032d-input", i), true})
	}
	text := mustProfile(t, &o)
	for rule := range strings.SplitSeq(text, "\n(") {
		if len(rule) > maxRule+(8<<10) {
			t.Errorf("a rule of %d bytes: %.80s", len(rule), rule)
		}
	}
	if n := strings.Count(text, "(subpath \"/nix/store/0"); n != 5000 {
		t.Errorf("%d inputs, want 5000", n)
	}
}

func TestSetOfPathsHasOneText(t *testing.T) {
	o, reordered := sample(), sample()
	reordered.Inputs = []Path{o.Inputs[1], o.Inputs[0], o.Inputs[1]}
	reordered.HostPaths = []Path{o.HostPaths[2], o.HostPaths[0], o.HostPaths[1], {"/usr/lib", false}}
	if diff := cmp.Diff(mustProfile(t, &o), mustProfile(t, &reordered)); diff != "" {
		t.Error(diff)
	}
}

func TestQuoting(t *testing.T) {
	o := sample()
	o.HostPaths = append(o.HostPaths, Path{`/dev/x") (allow default) (literal "`, false}, Path{`/dev/\`, false})
	text := mustProfile(t, &o)
	for _, want := range []string{`(literal "/dev/x\") (allow default) (literal \"")`, `(literal "/dev/\\")`} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %s", want)
		}
	}
}

func TestRefusedPaths(t *testing.T) {
	for _, name := range []string{"", "relative", "/a/../b", "/a/", "/a\nb", "/a\x00", "/a\x7f"} {
		for what, set := range map[string]func(*Options){
			"output":    func(o *Options) { o.Outputs = []string{name} },
			"input":     func(o *Options) { o.Inputs = []Path{{name, true}} },
			"host path": func(o *Options) { o.HostPaths = []Path{{name, false}} },
			"build dir": func(o *Options) { o.BuildDir = name },
			"temp dir":  func(o *Options) { o.TempDir = name },
			"store":     func(o *Options) { o.StoreDir = name },
			"helper":    func(o *Options) { o.Helper = name },
		} {
			o := sample()
			set(&o)
			if text, err := Profile(&o); err == nil {
				t.Errorf("%s %q accepted:\n%s", what, name, text)
			}
		}
	}
	o := sample()
	o.Additional = "(allow default)\x00"
	if _, err := Profile(&o); err == nil {
		t.Error("null byte in additional text accepted")
	}
}

func FuzzPathStaysQuoted(f *testing.F) {
	for _, s := range []string{`/a`, `/a"`, `/a\`, `/a\"`, "/\u00e4", `/")(allow default)("`, "/a\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		o := sample()
		o.HostPaths = []Path{{name, false}}
		text, err := Profile(&o)
		if err != nil {
			return
		}
		checkSyntax(t, text)
		plain := sample()
		plain.HostPaths = nil
		// One literal for the path and one for each directory above it: nothing of the name became a rule.
		if got, want := strings.Count(text, "\n("), strings.Count(mustProfile(t, &plain), "\n("); got != want {
			t.Errorf("%d rules, want %d:\n%s", got, want, text)
		}
	})
}

func BenchmarkProfile(b *testing.B) {
	o := sample()
	for i := range 800 {
		o.Inputs = append(o.Inputs, Path{fmt.Sprintf("/nix/store/%032d-input", i), true})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Profile(&o); err != nil {
			b.Fatal(err)
		}
	}
}
