package jsonlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/activity"
)

// The lines are upstream's for the same calls (internal-json of 2.34.8).
func TestLines(t *testing.T) {
	var out bytes.Buffer
	s := New(&out, nil)
	s.Message(activity.Info, "a \"b\"\t\\ \x1b[0m\x7f/<&\u2028")
	s.Message(activity.Error, "\x1b[31;1merror:\x1b[0m one\n       two")
	s.Start(5, activity.Info, activity.Build, "building", []activity.Field{activity.Text("/nix/store/x.drv"), activity.Text(""), activity.Number(1)}, 0)
	s.Result(5, activity.SetPhase, []activity.Field{activity.Text("buildPhase")})
	s.Stop(5)
	want := `{"action":"msg","level":3,"msg":"a \"b\"\t\\ \u001b[0m` + "\x7f/<&\u2028" + `"}
{"action":"msg","column":null,"file":null,"level":0,"line":null,"msg":"\u001b[31;1merror:\u001b[0m one\n       two","raw_msg":"one\ntwo"}
{"action":"start","fields":["/nix/store/x.drv","",1],"id":5,"level":3,"parent":0,"text":"building","type":105}
{"action":"result","fields":["buildPhase"],"id":5,"type":104}
{"action":"stop","id":5}
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

type failing struct{ writes int }

func (f *failing) Write([]byte) (int, error) {
	f.writes++
	return 0, errors.New("full")
}

func TestEndsAtAnError(t *testing.T) {
	var told []error
	w := &failing{}
	s := New(w, func(err error) { told = append(told, err) })
	s.Stop(1)
	s.Stop(2)
	if w.writes != 1 || len(told) != 1 || told[0].Error() != "full" {
		t.Errorf("%d writes, told %v", w.writes, told)
	}
}

// FuzzString holds what is written to be the JSON of the text, or of the text
// with what is not UTF-8 replaced.
func FuzzString(f *testing.F) {
	for _, s := range []string{"", "a\x00\x1f\"\\", "\xff\xfeab\xe2\x82", "\u2028\U0001F600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		line := AppendString(nil, s)
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if utf8.ValidString(s) && back != s || !utf8.ValidString(s) && !strings.Contains(back, "\ufffd") {
			t.Errorf("%q became %q", s, back)
		}
	})
}

func BenchmarkMessage(b *testing.B) {
	s := New(&bytes.Buffer{}, nil)
	var out bytes.Buffer
	s.w = &out
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		s.Message(activity.Info, "a line of a builder that is as long as lines are, more or less")
	}
}
