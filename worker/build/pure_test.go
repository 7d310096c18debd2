package build

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker/settings"
)

// What untrusted clients may set must not make the builds of others fail that they would share.
func TestOutcomeSettings(t *testing.T) {
	defaults := settings.Defaults(settings.Environment{System: "x86_64-linux"})
	for _, name := range []string{"timeout", "max-silent-time", "connect-timeout"} {
		set, warnings, _ := defaults.ApplyClient(settings.ClientOptions{Overrides: []settings.NameValue{{Name: name, Value: "1"}}}, false)
		other, _, _ := defaults.ApplyClient(settings.ClientOptions{}, false)
		if len(warnings) > 0 {
			t.Fatal(warnings)
		}
		if outcomeSettings(set) == outcomeSettings(other) {
			t.Errorf("builds with another %s are shared", name)
		}
	}
}

func TestText(t *testing.T) {
	text := textf("path '%s' is %s: %s, %s, %s", "x", 7, red("bad"), bold("b"), plain("p"))
	if got, want := text.String(), "path 'x' is 7: bad, b, p"; got != want {
		t.Errorf("plain %q, want %q", got, want)
	}
	want := "path '\x1b[35;1mx\x1b[0m' is \x1b[35;1m7\x1b[0m: \x1b[31;1mbad\x1b[0m, \x1b[1mb\x1b[0m, p"
	if got := text.Coloured(); got != want {
		t.Errorf("coloured %q, want %q", got, want)
	}
	// A percent sign in an argument is no format.
	if got := textf("%s and %s", plain("100%s"), plain("b")).String(); got != "100%s and b" {
		t.Errorf("percent: %q", got)
	}
	if got, want := errorLog("a\nb\n\nc"), "\x1b[31;1merror:\x1b[0m a\n       b\n\n       c"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
}

func TestColouredOfOthers(t *testing.T) {
	if got := Coloured(errors.New("x")); got != "x" {
		t.Errorf("got %q", got)
	}
	if got := Coloured(fmt.Errorf("wrapped: %w", errorf("a '%s'", "b"))); got != "wrapped: a 'b'" {
		t.Errorf("got %q", got)
	}
}

func TestExitStatus(t *testing.T) {
	tests := []struct {
		failures []*Failure
		want     uint64
	}{
		{nil, 1},
		{[]*Failure{{Status: derivation.StatusPermanentFailure}}, 100},
		{[]*Failure{{Status: derivation.StatusInputRejected}}, 100},
		{[]*Failure{{Status: derivation.StatusTimedOut}}, 101},
		{[]*Failure{{Status: derivation.StatusOutputRejected, HashMismatch: true}}, 102},
		{[]*Failure{{Status: derivation.StatusOutputRejected}}, 1},
		{[]*Failure{{Status: derivation.StatusNotDeterministic}}, 104},
		{[]*Failure{{Status: derivation.StatusTimedOut}, {Status: derivation.StatusOutputRejected, HashMismatch: true}}, 103},
		{[]*Failure{{Status: derivation.StatusNotDeterministic}, {Status: derivation.StatusOutputRejected, HashMismatch: true}}, 110},
		{[]*Failure{{Status: derivation.StatusDependencyFailed}}, 1},
	}
	for _, tt := range tests {
		var flags exitFlags
		for _, f := range tt.failures {
			flags.add(f)
		}
		if got := flags.status(); got != tt.want {
			t.Errorf("%+v: %d, want %d", tt.failures, got, tt.want)
		}
	}
}

func TestStatusText(t *testing.T) {
	if got := statusText(sandbox.Result{ExitCode: 2}); got != "failed with exit code 2" {
		t.Error(got)
	}
	if got := statusText(sandbox.Result{ExitCode: -1, Signal: syscall.SIGSEGV}); got != "failed due to signal 11 (Segmentation fault)" {
		t.Error(got)
	}
	if got := signalText(syscall.Signal(63)); got != "Unknown signal 63" {
		t.Error(got)
	}
}

func newLines(sink activity.Sink) *logLines {
	return &logLines{sink: sink, id: 1, messages: &jsonMessages{sink: sink, id: 1, ids: new(activity.IDs)}}
}

func TestLogLines(t *testing.T) {
	tests := []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"a\nb", []string{"a", "b"}},
		{"a\n\nb\n", []string{"a", "", "b"}},
		{"progress 10%\rprogress 20%\rdone\n", []string{"done"}},
		{"dos\r\nend\r\n", []string{"dos", "end"}},
		{"over\r\r\nx", []string{"", "x"}},
		{"abc\rx", []string{"x"}},
		{strings.Repeat("y", maxLogLine) + "z\n", []string{strings.Repeat("y", maxLogLine), "z"}},
	}
	for _, tt := range tests {
		for _, step := range []int{1, 2, 3, 1 << 20} {
			log := &recorder{}
			lines := newLines(log)
			for data := []byte(tt.in); len(data) > 0; {
				n := min(step, len(data))
				lines.Write(data[:n])
				data = data[n:]
			}
			lines.end()
			if diff := cmp.Diff(tt.want, log.lines()); diff != "" {
				t.Errorf("%.40q by %d (-want +got)\n%.400s", tt.in, step, diff)
			}
		}
	}
}

func FuzzLogLines(f *testing.F) {
	f.Add([]byte("a\r\nb\rc\n@nix {\"action\":\"setPhase\",\"phase\":\"x\"}\n"))
	f.Add([]byte(`@nix {"action":"start","id":1,"type":101,"level":3,"text":"t","fields":[1,"a",null,-1,{}]}` + "\n"))
	f.Add([]byte(`@nix [[[[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		log := &recorder{}
		lines := newLines(log)
		lines.Write(data[:len(data)/2])
		lines.Write(data[len(data)/2:])
		lines.end()
		if n := log.unstopped(); n != 0 {
			t.Errorf("%d activities have not stopped", n)
		}
		total := 0
		for _, line := range log.lines() {
			total += len(line)
		}
		if total > len(data) {
			t.Errorf("%d bytes in lines from %d", total, len(data))
		}
	})
}

func TestJSONMessages(t *testing.T) {
	tests := []struct {
		line    string
		handled bool
		warned  bool
	}{
		{"plain", false, false},
		{`@nix {"action":"setPhase","phase":"x"}`, true, false},
		{`@nix {"action":"setPhase"}`, false, true},
		{`@nix {"action":"setPhase","phase":7}`, false, true},
		{`@nix {"action":"unknown"}`, true, false},
		{`@nix {}`, false, true},
		{`@nix 7`, false, true},
		{`@nix {"action":"stop","id":99}`, true, false},
		{`@nix {"action":"result","id":99,"type":105}`, true, false},
		{`@nix {"action":"start","id":-1,"type":101}`, false, true},
		{`@nix {"action":"start","id":1,"type":101,"level":3,"text":"t","fields":[true]}`, false, true},
		{`@nix {"action":"start","id":1,"type":105}`, true, false},
	}
	for _, tt := range tests {
		log := &recorder{}
		m := &jsonMessages{sink: log, id: 1, ids: new(activity.IDs)}
		if got := m.handle(tt.line); got != tt.handled || (len(log.messages) > 0) != tt.warned {
			t.Errorf("%s: handled %t, messages %q", tt.line, got, log.messages)
		}
	}
}

func TestFeedReplays(t *testing.T) {
	var f feed
	line := func(text string) { f.Result(5, activity.BuildLogLine, []activity.Field{activity.Text(text)}) }
	early, late := &recorder{}, &recorder{}
	f.join(early, early)
	f.Start(5, activity.Info, activity.Build, "building", nil, 0)
	f.Start(6, activity.Info, activity.FileTransfer, "gone", nil, 5)
	line("one")
	f.Stop(6)
	f.Message(activity.Warn, "careful")
	f.join(late, late)
	line("two")
	got := late
	if diff := cmp.Diff([]string{"one", "two"}, got.lines()); diff != "" {
		t.Errorf("late lines (-want +got)\n%s", diff)
	}
	if len(got.starts) != 1 || got.logged() != "careful" {
		t.Errorf("late: %+v, %q", got.starts, got.logged())
	}
	f.leave(early)
	if n := early.unstopped(); n != 0 {
		t.Errorf("%d activities go on for who left", n)
	}
	line("three")
	f.close()
	if n := got.unstopped(); n != 0 {
		t.Errorf("%d activities go on after the end", n)
	}
	if diff := cmp.Diff([]string{"two", "three"}, f.tail(2)); diff != "" {
		t.Errorf("tail (-want +got)\n%s", diff)
	}
	if n := len(early.lines()); n != 2 {
		t.Errorf("%d lines for who left", n)
	}
}

func TestFeedIsBounded(t *testing.T) {
	var f feed
	text := strings.Repeat("x", 1000)
	for range 10 * replayBytes / len(text) {
		f.Result(5, activity.BuildLogLine, []activity.Field{activity.Text(text)})
	}
	f.Message(activity.Info, strings.Repeat("y", 2*replayBytes))
	if f.size > 3*replayBytes || len(f.past) > 1 {
		t.Errorf("%d bytes in %d events", f.size, len(f.past))
	}
}

func testPath(i int, name string) storepath.Path {
	p, err := storepath.New([20]byte{byte(i), byte(i >> 8), 77}, name)
	if err != nil {
		panic(err)
	}
	return p
}

// TestScanAgainstSearch compares the scanner, fed in pieces, with a plain search.
func TestScanAgainstSearch(t *testing.T) {
	var paths []storepath.Path
	for i := range 20 {
		paths = append(paths, testPath(i, "x"))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var text []byte
		for range random.IntN(12) {
			switch p := paths[random.IntN(len(paths))]; random.IntN(4) {
			case 0:
				text = append(text, p.HashPart()...)
			case 1:
				text = append(text, p.HashPart()[:random.IntN(32)]...)
			case 2:
				text = append(text, "0123 /nix/store/"...)
			case 3:
				text = append(text, bytes.Repeat([]byte{'z'}, random.IntN(80))...)
			}
		}
		s := newRefScanner(paths)
		for rest := text; len(rest) > 0; {
			n := 1 + random.IntN(min(len(rest), 70))
			s.Write(rest[:n])
			rest = rest[n:]
		}
		var want []storepath.Path
		for _, p := range paths {
			if bytes.Contains(text, []byte(p.HashPart())) {
				want = append(want, p)
			}
		}
		if got := s.References(); !slices.Equal(got, storepath.SortUnique(want)) {
			t.Fatalf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestRewriter(t *testing.T) {
	a, b, c := testPath(1, "x"), testPath(2, "x"), testPath(3, "x")
	rules := map[hashPart]hashPart{hashPartOf(a): hashPartOf(b), hashPartOf(b): hashPartOf(c)}
	text := "x" + a.HashPart() + b.HashPart() + " " + a.HashPart()[:31] + "z" + c.HashPart() + a.HashPart()
	want := "x" + b.HashPart() + c.HashPart() + " " + a.HashPart()[:31] + "z" + c.HashPart() + b.HashPart()
	for step := 1; step < len(text)+1; step++ {
		var out bytes.Buffer
		r := newRewriter(&out, rules)
		for rest := []byte(text); len(rest) > 0; {
			n := min(step, len(rest))
			if _, err := r.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := r.Close(); err != nil || out.String() != want {
			t.Fatalf("by %d: %q, want %q (%v)", step, out.String(), want, err)
		}
	}
}

func TestRewriterPassesErrorsOn(t *testing.T) {
	broken := errors.New("full")
	r := newRewriter(failingWriter{broken}, map[hashPart]hashPart{hashPartOf(testPath(1, "x")): {}})
	if _, err := r.Write(make([]byte, 100)); err != broken {
		t.Errorf("write: %v", err)
	}
	if err := r.Close(); err != broken {
		t.Errorf("close: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestRewriteString(t *testing.T) {
	rules := map[string]string{"/placeholder": "/store/aaa-x", "aaa": "bbb"}
	// Placeholders come first, then hash parts, in them too.
	if got := rewriteString("/placeholder aaa", rules); got != "/store/bbb-x bbb" {
		t.Errorf("got %q", got)
	}
}
