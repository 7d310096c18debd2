package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/build"
	"nixdaemon/worker/settings"
)

// notes is a log that remembers.
type notes struct {
	mu       sync.Mutex
	lines    []string
	messages []string
	starts   []string
	results  []string
	output   bytes.Buffer
	full     int // the output after which no more is taken; 0 for any
}

func (n *notes) Message(_ activity.Level, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.messages = append(n.messages, text)
}

func (n *notes) Start(_ activity.ID, _ activity.Level, _ activity.Type, text string, _ []activity.Field, _ activity.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.starts = append(n.starts, text)
}

func (n *notes) Stop(activity.ID) {}

func (n *notes) Result(_ activity.ID, kind activity.ResultType, fields []activity.Field) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.results = append(n.results, fmt.Sprintf("%d %s", kind, fields[0].Text))
}

func (n *notes) Line(line string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
	return strings.HasPrefix(line, "@nix ")
}

var errFull = errors.New("full")

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.full > 0 && n.output.Len()+len(p) > n.full {
		return 0, errFull
	}
	return n.output.Write(p)
}

// hookWorld is a directory for hooks that are shell scripts.
type hookWorld struct {
	*testing.T
	dir string
	b   *Builders
	own *bytes.Buffer
	set *settings.Settings
}

func newHookWorld(t *testing.T, script string) *hookWorld {
	w := &hookWorld{T: t, dir: t.TempDir(), own: &bytes.Buffer{}}
	program := filepath.Join(w.dir, "a hook")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nDIR="+w.dir+"\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	w.set = settings.Defaults(settings.Environment{System: "x86_64-linux", CPUs: 2}).Clone()
	w.set.BuildHook = []string{program, "an argument"}
	w.set.Verbosity = 3
	w.b = New(Options{Dir: storepath.DefaultDir, Log: zerolog.New(w.own)})
	t.Cleanup(func() {
		if err := w.b.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *hookWorld) machines() build.Machines {
	m := w.b.Machines(w.set)
	w.Cleanup(m.Release)
	return m
}

func (w *hookWorld) read(name string) string {
	w.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.Fatal(err)
	}
	return string(text)
}

func drvPath(t testing.TB) storepath.Path {
	p, err := storepath.DefaultDir.Parse("/nix/store/00000000000000000000000000000000-x.drv")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *hookWorld) need(n *notes) build.Need {
	return build.Need{System: "x86_64-linux", DrvPath: drvPath(w), Features: []string{"kvm"}, Willing: true, Settings: w.set, Log: n}
}

// TestHookProtocol compares all that a hook hears with what upstream tells it, byte by byte.
func TestHookProtocol(t *testing.T) {
	w := newHookWorld(t, `
pwd > $DIR/cwd
echo "$0|$1|$2|$#" > $DIR/args
ps -o sid= -o pgid= -p $$ > $DIR/session
dd bs=1 count=$(cat $DIR/count) of=$DIR/asked 2> /dev/null
echo '@nix {"action":"msg","level":3,"msg":"hello"}' >&2
echo plain words
echo ssh has said >&4; read line <&5; echo "5: $line" > $DIR/five
echo '# accept' >&2
echo 'ssh://a machine' >&2
cat > $DIR/told
echo from the builder >&4
echo not a message >&2
echo at the end >&4
exit 7
`)
	var want bytes.Buffer
	out := wire.NewWriter(&want)
	for name, value := range w.set.All() {
		out.Uint64(1)
		out.String(name)
		out.String(value)
	}
	out.Uint64(0)
	for _, s := range []string{"try"} {
		out.String(s)
	}
	out.Uint64(1)
	out.String("x86_64-linux")
	out.String("/nix/store/00000000000000000000000000000000-x.drv")
	out.Strings([]string{"kvm"})
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "count"), fmt.Append(nil, want.Len()), 0o644); err != nil {
		t.Fatal(err)
	}
	n := &notes{}
	answer, machine, err := w.machines().Ask(t.Context(), w.need(n))
	if err != nil || answer != build.Accept || machine.Machine() != "ssh://a machine" {
		t.Fatalf("%v, %v, %v; %s", answer, machine, err, w.own)
	}
	if got := w.read("asked"); got != want.String() {
		t.Errorf("asked %q, want %q", got, want.String())
	}
	if !strings.Contains(want.String(), "builders") || strings.Contains(want.String(), "max-total-jobs") {
		t.Error("the settings are not upstream's")
	}
	err = machine.Build(t.Context(), build.Task{Inputs: []storepath.Path{drvPath(t)}, Wanted: []string{"dev", "out"}, Log: n, Output: n})
	if f, ok := errors.AsType[*build.RemoteFailure](err); !ok || f.ExitCode != 7 {
		t.Errorf("error %v", err)
	}
	var told bytes.Buffer
	out = wire.NewWriter(&told)
	out.Strings([]string{"/nix/store/00000000000000000000000000000000-x.drv"})
	out.Strings([]string{"dev", "out"})
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := w.read("told"); got != told.String() {
		t.Errorf("told %q, want %q", got, told.String())
	}
	if got, want := w.read("args"), w.set.BuildHook[0]+"|an argument|3|2\n"; got != want || w.read("cwd") != "/\n" {
		t.Errorf("arguments %s, directory %s", got, w.read("cwd"))
	}
	if session := strings.Fields(w.read("session")); len(session) == 2 && session[0] != session[1] {
		t.Errorf("session and group %v", session)
	}
	if got := w.read("five") + n.output.String(); got != "5: ssh has said\nfrom the builder\nat the end\n" {
		t.Errorf("output %q", got)
	}
	wantLines := []string{`@nix {"action":"msg","level":3,"msg":"hello"}`, "plain words", "# accept", "not a message"}
	if diff := cmp.Diff(wantLines, n.lines); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(w.own.String(), "plain words") {
		t.Errorf("own log: %s", w.own)
	}
}

// TestHookReplies is about what hooks answer and how they die.
func TestHookReplies(t *testing.T) {
	start := "echo x >> $DIR/started\ndd bs=1 count=8 of=/dev/null 2>/dev/null\n"
	for _, test := range []struct {
		name, script string
		answer       build.Answer
		err, trace   string
		started      int // processes for two questions
	}{
		{"decline", "echo '# decline'; echo '# decline'; cat > /dev/null", build.Decline, "", "", 1},
		{"postpone", "echo '# postpone'; echo '# postpone'; cat > /dev/null", build.Postpone, "", "", 1},
		{"permanently", "echo '# decline-permanently'; cat > /dev/null", build.Decline, "", "", 1},
		{"bad", "echo '# perhaps'; cat > /dev/null", build.Decline, "bad hook reply 'perhaps'", "", 2},
		{"silent", "cat > /dev/null & exec > /dev/null 2>&1", build.Decline, "unexpected EOF reading a line", "while reading the response from the build hook", 2},
		{"nameless", "echo '# accept'; exit 1", build.Decline, "unexpected EOF reading a line", "while reading the machine name from the build hook", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newHookWorld(t, start+test.script)
			machines := w.machines()
			for range 2 {
				answer, _, err := machines.Ask(t.Context(), w.need(&notes{}))
				if answer != test.answer || (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
					t.Errorf("%v, %v", answer, err)
				}
				var traced interface{ Traces() []string }
				if errors.As(err, &traced) != (test.trace != "") || traced != nil && traced.Traces()[0] != test.trace {
					t.Errorf("trace of %v", err)
				}
			}
			if got := strings.Count(w.read("started"), "x"); got != test.started {
				t.Errorf("%d processes, want %d", got, test.started)
			}
		})
	}
}

func TestHookMissing(t *testing.T) {
	w := newHookWorld(t, "")
	for _, test := range []struct{ program, err string }{
		{"/no/such/hook", "unexpected EOF reading a line"},
		{"no-such-hook", "Could not find executable 'no-such-hook'"},
	} {
		w.set = w.set.Clone()
		w.set.BuildHook = []string{test.program}
		if _, _, err := w.machines().Ask(t.Context(), w.need(&notes{})); err == nil || err.Error() != test.err {
			t.Errorf("%s: %v", test.program, err)
		}
	}
	w.set.BuildHook = nil
	if w.b.Machines(w.set) != nil {
		t.Error("machines without a hook")
	}
}

// TestHookDied has a hook end between two questions.
func TestHookDied(t *testing.T) {
	w := newHookWorld(t, "dd bs=1 count=8 of=/dev/null 2>/dev/null; echo '# decline'; echo last words; exec sleep 1000 0</dev/null")
	machines := w.machines()
	n := &notes{}
	for i := range 2 {
		if answer, _, err := machines.Ask(t.Context(), w.need(n)); answer != build.Decline || err != nil {
			t.Fatalf("%v, %v", answer, err)
		}
		if i == 0 {
			// Its standard input is closed once it is asleep.
			h := machines.(*hooks).idle
			for h.in.Uint64(0) == nil && h.in.Flush() == nil {
				time.Sleep(time.Millisecond)
			}
		}
	}
	if diff := cmp.Diff([]string{"build hook died unexpectedly: last words"}, n.messages); diff != "" {
		t.Error(diff)
	}
}

// TestHookEnds shows that nothing of a hook is left: neither when the build is given up, nor when it prints too much,
// nor of an idle one.
func TestHookEnds(t *testing.T) {
	accept := "echo $$ > $DIR/pid; dd bs=1 count=8 of=/dev/null 2>/dev/null; echo '# accept'; echo machine; "
	for _, test := range []struct {
		name, script string
		act          func(ctx context.Context, cancel func(), w *hookWorld, machine build.Reservation, n *notes) error
		want         error
	}{
		{"given up", accept + "sleep 1000 & echo begun; wait", func(ctx context.Context, cancel func(), w *hookWorld, machine build.Reservation, n *notes) error {
			go func() {
				for len(n.seen()) == 0 {
					time.Sleep(time.Millisecond)
				}
				cancel()
			}()
			return machine.Build(ctx, build.Task{Log: n, Output: n})
		}, context.Canceled},
		{"too much", accept + "yes >&4", func(ctx context.Context, _ func(), w *hookWorld, machine build.Reservation, n *notes) error {
			n.full = 100
			return machine.Build(ctx, build.Task{Log: n, Output: n})
		}, errFull},
		{"not wanted", accept + "sleep 1000", func(_ context.Context, _ func(), w *hookWorld, machine build.Reservation, n *notes) error {
			machine.Cancel()
			return nil
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newHookWorld(t, "exec 2>&1\n"+test.script)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n := &notes{}
			answer, machine, err := w.machines().Ask(ctx, w.need(n))
			if answer != build.Accept || err != nil {
				t.Fatalf("%v, %v", answer, err)
			}
			n.mu.Lock()
			n.lines = nil
			n.mu.Unlock()
			if err := test.act(ctx, cancel, w, machine, n); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			w.gone()
		})
	}
	t.Run("idle", func(t *testing.T) {
		w := newHookWorld(t, "exec 2>&1; echo $$ > $DIR/pid; echo '# decline'; exec sleep 1000")
		m := w.b.Machines(w.set)
		if again := w.b.Machines(w.set); again != m {
			t.Error("equal settings have other hooks")
		} else {
			again.Release()
		}
		if _, _, err := m.Ask(t.Context(), w.need(&notes{})); err != nil {
			t.Fatal(err)
		}
		m.Release()
		if err := w.b.Close(); err != nil {
			t.Error(err)
		}
		w.gone()
	})
}

// TestHookGrace gives a hook the time of build-hook-kill-timeout to clean up, and no more.
func TestHookGrace(t *testing.T) {
	for _, test := range []struct {
		name, asked string // what it does when asked to end
		timeout     uint64
		cleaned     bool
	}{
		{"cleans up", "echo done > $DIR/cleaned; exit", 60_000, true},
		{"deaf", "", 1, false},
		{"no time", "echo done > $DIR/cleaned; exit", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newHookWorld(t, "exec 2>&1; trap '"+test.asked+"' TERM; echo $$ > $DIR/pid; dd bs=1 count=8 of=/dev/null 2>/dev/null; "+
				"echo '# accept'; echo machine; while :; do sleep 1000 & wait; done")
			w.set.BuildHookKillTimeout = test.timeout
			_, machine, err := w.machines().Ask(t.Context(), w.need(&notes{}))
			if err != nil {
				t.Fatal(err)
			}
			machine.Cancel()
			if _, err := os.Stat(filepath.Join(w.dir, "cleaned")); (err == nil) != test.cleaned {
				t.Errorf("cleaned up: %v, want %v", err == nil, test.cleaned)
			}
			w.gone()
		})
	}
}

func (n *notes) seen() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lines
}

// gone wants no process of the hook's group to be left.
func (w *hookWorld) gone() {
	w.Helper()
	var pid int
	if _, err := fmt.Sscan(w.read("pid"), &pid); err != nil {
		w.Fatal(err)
	}
	// What was killed may take a moment to vanish.
	for deadline := time.Now().Add(time.Minute); syscall.Kill(-pid, 0) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatal("something of the hook is left")
		}
	}
}

// TestHookSettingsApart has clients with other settings talk to hooks of their own.
func TestHookSettingsApart(t *testing.T) {
	w := newHookWorld(t, "cat > /dev/null")
	m := w.machines()
	w.set = w.set.Clone()
	w.set.Builders = "ssh://other"
	if other := w.machines(); other == m || other.Key() == m.Key() {
		t.Error("hooks are shared")
	}
	w.set = w.set.Clone()
	w.set.BuildHook = builtinHook
	if _, ours := w.machines().(*pool); !ours {
		t.Error("a hook for what we do ourselves")
	}
}
