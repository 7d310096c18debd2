package view

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/daemon/status"
)

var update = flag.Bool("update", false, "write the golden files anew")

var start = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time   { return start.Add(time.Duration(seconds) * time.Second) }
func ptr(t time.Time) *time.Time { return &t }
func drv(hash, name string) string {
	return "/nix/store/" + strings.Repeat(hash, 32) + "-" + name + ".drv"
}

// busy is a daemon that does something of everything, at a second after start.
func busy(now int) status.Snapshot {
	used := float64(now) * 0.98
	builds := []status.Build{
		{ID: "10-12", Derivation: drv("a", "hello-2.12"), State: status.Running, Since: at(0), Queued: at(0), Began: ptr(at(1)), Phase: "buildPhase",
			LastLine: "gcc -c \x1b[31mfoo.c\x1b[0m -o foo.o\twith\x07 bells", CPUSeconds: used, Memory: 120 << 20, Processes: 3, Users: []string{"alice"}},
		{ID: "10-13", Derivation: drv("b", "firefox-unwrapped-140.0.1-with-a-name-that-goes-on-and-on"), State: status.Running, Since: at(0), Queued: at(0), Began: ptr(at(2)),
			Phase: "unpackPhase", Machine: "ssh://farm", LastLine: "unpacking sources", Users: []string{"alice", "bob"}},
		{ID: "10-14", Derivation: drv("c", "bash"), Mode: "check", State: status.Running, Since: at(3), Queued: at(0), Users: []string{}, Others: 2},
		{ID: "10-15", Derivation: drv("d", "libc"), State: status.Waiting, Reason: "lock on /nix/store/xyz-libc", Since: at(0), Queued: at(0), Users: []string{"bob"}},
		{ID: "10-16", Derivation: drv("e", "m4"), State: status.Waiting, Reason: "machine", Since: at(0), Queued: at(0), Users: []string{"bob"}},
	}
	for i := range 6 {
		builds = append(builds, status.Build{ID: fmt.Sprintf("10-%d", 17+i), Derivation: drv("f", fmt.Sprintf("package-%d", i)), State: status.Queued, Since: at(0), Queued: at(0), Users: []string{"alice"}})
	}
	return status.Join(at(now), status.Server{
		PID: 10, Release: "2.34.8", State: "serving", Since: at(-11000), Memory: 18 << 20, Slots: 4, Running: 2, Builds: builds,
		Waiting: []status.Wait{
			{Kind: status.KindBuild, What: drv("i", "nix"), Reason: "inputs", Open: 3, Users: []string{"alice"}, For: []status.Cause{
				{Kind: status.KindBuild, What: drv("a", "hello-2.12"), State: status.Running}, {Kind: status.KindSubstitution, What: "/nix/store/h-llvm-20", State: status.Running},
				{Kind: status.KindBuild, What: drv("f", "package-0"), State: status.Queued}}},
			{Kind: status.KindSubstitution, What: "/nix/store/h-clang", Reason: "references", Open: 1, Users: []string{}, Others: 1, For: []status.Cause{
				{Kind: status.KindSubstitution, What: "/nix/store/h-zlib", State: "substitution slot"}}},
			{Kind: status.KindSubstitution, What: "/nix/store/h-zlib", Reason: "substitution slot", Users: []string{"bob"}},
			{Kind: status.KindSubstitution, What: "/nix/store/h-ncurses", Reason: "answer of a cache", Users: []string{"bob"}},
		}, MoreWaiting: 4711,
		Requests: []status.Request{{User: "alice", Builds: status.Count{Open: 30, Running: 2}}, {User: "bob", Builds: status.Count{Open: 3}}},
		Substitutions: []status.Substitution{
			{Path: "/nix/store/h-llvm-20", Cache: "https://cache.example.org", Done: uint64(now) * 3 << 20, Size: 400 << 20, Since: at(0), User: "alice"},
			{Path: "/nix/store/h-odd", Done: 700, Since: at(0)},
		},
		Collection: &status.Collection{Action: "delete-dead", Step: "deleting", Since: at(0), For: "root", Dead: 3400, Deleted: 850, Freed: 1288490188, MaxFreed: 5 << 30},
		Connections: []status.Connection{
			{Client: 1, User: "alice", PID: 4242, Since: at(-60), Operation: "BuildPathsWithResults", Began: ptr(at(0))},
			{Client: 2, User: "alice", Since: at(-60)}, {Client: 3, User: "alice", Since: at(-60)},
		}, OtherConnections: 4,
		Recent: []status.Ended{
			{Kind: status.KindBuild, What: drv("g", "gcc-14"), Outcome: status.Succeeded, Began: at(-300), Ended: at(-10)},
			{Kind: status.KindBuild, What: drv("h", "broken"), Outcome: status.Failed, Error: "x", Began: at(-30), Ended: at(-20)},
			{Kind: status.KindCollection, Outcome: status.GivenUp, Began: at(-3000), Ended: at(-2900), Bytes: 5 << 30},
		},
	})
}

func TestGolden(t *testing.T) {
	before, now := busy(10), busy(12)
	two := busy(12)
	two.Servers = append(two.Servers, status.Server{PID: 9, Release: "2.34.8", State: "draining", Since: at(-90000), Slots: 4, Running: 1,
		Builds: []status.Build{{ID: "9-3", Derivation: drv("z", "slow"), State: status.Running, Since: at(-5000), Queued: at(-5000), Began: ptr(at(-5000)), CPUSeconds: 4000, Users: []string{"carol"}}}})
	for name, tt := range map[string]struct {
		s status.Snapshot
		o Options
	}{
		"unlimited":    {now, Options{}},
		"wide":         {now, Options{Width: 120, Height: 50, Before: &before}},
		"usual":        {now, Options{Width: 80, Height: 24, Before: &before}},
		"small":        {now, Options{Width: 50, Height: 12}},
		"tiny":         {now, Options{Width: 20, Height: 4}},
		"colour":       {now, Options{Width: 80, Height: 30, Colour: true, Before: &before}},
		"two-servers":  {two, Options{Width: 100, Height: 60, Before: &before}},
		"idle":         {status.Join(at(0), status.Server{PID: 1, Release: "2.34.8", State: "serving", Since: at(-59), Slots: 2}), Options{Width: 80, Height: 24}},
		"nobody-there": {status.Join(at(0)), Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			lines := Render(tt.s, tt.o)
			for _, line := range lines {
				if tt.o.Width > 0 && width(line) > tt.o.Width {
					t.Errorf("%d columns: %q", width(line), line)
				}
			}
			if tt.o.Height > 0 && len(lines) > tt.o.Height {
				t.Errorf("%d lines", len(lines))
			}
			got := strings.Join(lines, "\n") + "\n"
			file := filepath.Join("testdata", name+".golden")
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
				t.Errorf("(-want +got, \"go test ./daemon/status/view -update\" writes it anew):\n%s", diff)
			}
		})
	}
}

// TestAnySize fits into every terminal.
func TestAnySize(t *testing.T) {
	s := busy(12)
	for w := 1; w < 130; w += 7 {
		for h := 1; h < 60; h += 2 {
			lines := Render(s, Options{Width: w, Height: h, Colour: w%2 == 0})
			if len(lines) > h {
				t.Fatalf("%dx%d: %d lines", w, h, len(lines))
			}
			for _, line := range lines {
				if width(line) > w {
					t.Fatalf("%dx%d: %q", w, h, line)
				}
			}
		}
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain", "\x1b[1;31mred\x1b[0m": "red", "a\x1b]0;title\x07b": "ab", "a\x1b]8;;http://x\x1b\\b": "ab", "\x1bPq..\x1b\\z": "z",
		"\x1b": "", "\x1b[": "", "\x1b[31": "", "x\x1bcy": "xy", "tab\there": "tab here", "\x00\x08\x7f\u009b31m": "31m", "\xff\xfe": "??",
		"line\nbreak\r": "line break", "right\u202eto left": "rightto left", "caf\u00e9": "caf\u00e9", "a\x1b[3\x1b[4mb": "ab",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("plain \x1b[1;31mred\x1b[0m \x1b]0;title\x07 \u202e \xff", 5)
	f.Fuzz(func(t *testing.T, text string, most int) {
		got := clean(text)
		for _, r := range got {
			if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
				t.Errorf("%q becomes %q", text, got)
			}
		}
		if clean(got) != got {
			t.Errorf("%q is not clean", got)
		}
		if most = min(most, 1000); most >= 0 && width(shorten(got, most)) > most {
			t.Errorf("%q cut to %d is %q", got, most, shorten(got, most))
		}
	})
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{size(0), "0 B"}, {size(1023), "1023 B"}, {size(1024), "1.0 KiB"}, {size(10 << 10), "10 KiB"}, {size(1<<20 - 1), "1.0 MiB"},
		{size(1 << 63), "8192 PiB"}, {clock(59 * time.Second), "0:59"}, {clock(3661 * time.Second), "1:01:01"}, {clock(-time.Second), "0:00"},
		{age(59 * time.Second), "59 s"}, {age(3599 * time.Second), "59 min"}, {age(7260 * time.Second), "2 h 1 min"}, {age(90000 * time.Second), "1 d 1 h"},
		{bar(0, 10), "[----------------]   0%"}, {bar(20, 10), "[################] 100%"}, {bar(5, 0), "[################] 100%"},
		{shorten("abcdef", 4), "ab.."}, {shorten("\x1b[1mabcdef\x1b[0m", 4), "\x1b[1mab..\x1b[0m"}, {shorten("\u4e2d\u4e2d\u4e2d", 5), "\u4e2d.."},
		{people([]string{"a", "b"}, 1), "a, b, 1 other"}, {people(nil, 2), "2 others"}, {spread("a", "b", 5), "a   b"}, {spread("a", "b", 3), "a"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestScreen(t *testing.T) {
	var out strings.Builder
	s := NewScreen(&out)
	if err := s.Close(); err != nil || out.Len() != 0 {
		t.Errorf("closed before it was used: %q, %v", out.String(), err)
	}
	for _, lines := range [][]string{{"one", "two"}, {"three"}} {
		if err := s.Show(lines); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := enter + beginPicture + home + "one" + clearLine + "\r\ntwo" + clearLine + clearRest + endPicture +
		beginPicture + home + "three" + clearLine + clearRest + endPicture + leave
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
}

func BenchmarkRender(b *testing.B) {
	s := busy(12)
	for b.Loop() {
		Render(s, Options{Width: 120, Height: 40, Colour: true})
	}
}
