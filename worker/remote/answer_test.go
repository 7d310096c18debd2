package remote

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/settings"
)

// asked is what a daemon tells a hook.
type asked struct {
	bytes.Buffer
	w *wire.Writer
}

func newAsked(t *testing.T, told ...string) *asked {
	a := &asked{}
	a.w = wire.NewWriter(a)
	for i := 0; i < len(told); i += 2 {
		a.w.Uint64(1)
		a.w.String(told[i])
		a.w.String(told[i+1])
	}
	a.w.Uint64(0)
	t.Cleanup(func() {
		if err := a.w.Flush(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *asked) try(w *poolWorld, willing bool, drv storepath.Path, features ...string) *asked {
	a.w.String("try")
	a.w.Bool(willing)
	a.w.String("x86_64-linux")
	a.w.String(w.store.Dir().Print(drv))
	a.w.Strings(features)
	a.w.Flush()
	return a
}

func (a *asked) task(inputs, wanted []string) *asked {
	a.w.Strings(inputs)
	a.w.Strings(wanted)
	a.w.Flush()
	return a
}

// answerTo has a hook answer everything that was asked.
func (w *poolWorld) answerTo(a *asked) (said, printed string, err error) {
	w.Helper()
	var say, output bytes.Buffer
	closed := 0
	if err := a.w.Flush(); err != nil {
		w.Fatal(err)
	}
	h := NewHook(a, &say, &output, func() error { closed++; return nil }, settings.LevelInfo)
	if _, err := h.Settings(); err != nil {
		w.Fatal(err)
	}
	err = h.Answer(w.Context(), w.b, w.set, []string{"local-feature"}, w.store.NewTempRoots())
	if strings.Contains(say.String(), "# accept") != (closed == 1) {
		w.Errorf("the other end of the output was closed %d times", closed)
	}
	return say.String(), output.String(), err
}

func TestHookSettings(t *testing.T) {
	a := newAsked(t, "builders", "ssh://x", "cores", "3")
	a.w.Flush()
	got, err := NewHook(a, nil, nil, nil, 0).Settings()
	if diff := cmp.Diff([]settings.NameValue{{Name: "builders", Value: "ssh://x"}, {Name: "cores", Value: "3"}}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// TestAnswer is a whole conversation: declined, postponed, accepted and built.
func TestAnswer(t *testing.T) {
	w := newPoolWorld(t, "ssh://a - - 1 1 big")
	w.set.MaxJobs = 1
	a := w.machine("a")
	a.during = func(context.Context, activity.Sink) error {
		a.stderr("said far away")
		return nil
	}
	src := w.add("src", "text")
	drv := w.drv("x", []storepath.Path{src}, nil)
	ask := newAsked(t).try(w, true, drv, "odd").try(w, true, drv, "big").task([]string{w.store.Dir().Print(src)}, []string{"out"})
	said, printed, err := w.answerTo(ask)
	if err != nil {
		t.Fatal(err)
	}
	var plain []string
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "@nix ") {
			plain = append(plain, strings.TrimSpace(line))
		}
	}
	if diff := cmp.Diff([]string{"# decline", "# accept", "ssh://a"}, plain); diff != "" {
		t.Error(diff)
	}
	if printed != "said far away\n" {
		t.Errorf("printed %q", printed)
	}
	for _, want := range []string{
		`"level":1,"msg":"Failed to find a machine`, `"type":100`, `{"action":"stop","id":`,
		`"text":"copying outputs from 'ssh://a'"`, `{"action":"result","fields":[1,1,0,0],"id":`,
	} {
		if !strings.Contains(said, want) {
			t.Errorf("never said %s\n%s", want, said)
		}
	}
	if valid, err := w.store.IsValid(t.Context(), w.out(drv)); !valid || err != nil {
		t.Errorf("output valid: %v, %v", valid, err)
	}
}

func TestAnswerOtherwise(t *testing.T) {
	w := newPoolWorld(t, "ssh-ng://a")
	w.set.MaxJobs = 1
	drv := w.drv("x", nil, nil)
	_, busy := w.ask(drv, &notes{})
	// Busy: wait, unless this machine can do it at once.
	said, _, err := w.answerTo(newAsked(t).try(w, false, drv).try(w, true, drv).try(w, true, drv, "far-feature"))
	if diff := cmp.Diff("# postpone\n# decline\n", strings.Join(withoutMessages(said)[:2], "")); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	busy.Cancel()
	w.machine("a").result = derivation.BuildResult{Status: derivation.StatusPermanentFailure, ErrorMsg: "no luck"}
	said, _, err = w.answerTo(newAsked(t).try(w, false, drv).task(nil, []string{"out"}))
	if !errors.Is(err, ErrFailed) || !strings.Contains(said, "no luck") {
		t.Errorf("%v: %s", err, said)
	}
	w.set.Builders = ""
	if said, _, err = w.answerTo(newAsked(t)); said != "# decline-permanently\n" || err != nil {
		t.Errorf("%v: %s", err, said)
	}
	w.set.Builders = "ssh-ng://a"
	ask := newAsked(t)
	ask.w.String("enough")
	ask.w.Flush()
	if said, _, err = w.answerTo(ask); said != "" || err != nil {
		t.Errorf("%v: %s", err, said)
	}
}

func withoutMessages(said string) []string {
	var lines []string
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "@nix ") {
			lines = append(lines, line)
		}
	}
	return append(lines, "", "")
}

// TestSpeaker is golden: the lines are those of upstream's JSONLogger.
func TestSpeaker(t *testing.T) {
	var b bytes.Buffer
	s := &speaker{to: &b, verbosity: activity.Info}
	s.Message(activity.Info, "a <message> \u00e9")
	s.Message(activity.Talkative, "not said")
	s.Start(7, activity.Info, activity.Build, "text", []activity.Field{activity.Text("t"), activity.Number(1)}, 3)
	s.Start(8, activity.Info, activity.Unknown, "", nil, 0)
	s.Result(7, activity.BuildLogLine, []activity.Field{activity.Text("line")})
	s.Stop(7)
	if !s.Line(`@nix {"x":1}`) || s.Line("other") {
		t.Error("Line")
	}
	want := `@nix {"action":"msg","level":3,"msg":"a <message> é"}
@nix {"action":"start","fields":["t",1],"id":7,"level":3,"parent":3,"text":"text","type":105}
@nix {"action":"start","id":8,"level":3,"parent":0,"text":"","type":0}
@nix {"action":"result","fields":["line"],"id":7,"type":101}
@nix {"action":"stop","id":7}
@nix {"x":1}
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

// FuzzHook has a hook hear anything.
func FuzzHook(f *testing.F) {
	var b bytes.Buffer
	w := wire.NewWriter(&b)
	w.Uint64(1)
	w.String("cores")
	w.String("1")
	w.Uint64(0)
	w.String("try")
	w.Uint64(1)
	w.String("x86_64-linux")
	w.String("/nix/store/00000000000000000000000000000000-x.drv")
	w.Strings([]string{"kvm"})
	if err := w.Flush(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:40])
	f.Fuzz(func(t *testing.T, data []byte) {
		h := NewHook(bytes.NewReader(data), &bytes.Buffer{}, &bytes.Buffer{}, nil, 0)
		if _, err := h.Settings(); err != nil {
			return
		}
		for {
			if need, err := h.question(storepath.DefaultDir); need == nil || err != nil {
				return
			}
		}
	})
}
