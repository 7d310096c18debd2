package daemonlog

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

func clock() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC) }

// say writes a line of each kind.
func say(l zerolog.Logger) {
	l.Debug().Msg("not wanted")
	l.Info().Int("pid", 7).Str("user", "a b").Strs("list", []string{"x", "y"}).Msg("hello 'you'")
	l.Info().Str(EventKey, "build").Str("drv", "x.drv").Msg("built x.drv")
	l.Error().Err(errors.New("fetch https://me:pass@host/x: no")).Msg("failed")
	l.Log().Bool("audit", true).Msg("deed")
}

func TestFormats(t *testing.T) {
	const (
		humanLines = "hello 'you' list=x,y pid=7 user=\"a b\"\nbuilt x.drv\nfailed error=\"fetch https://host/x: no\"\ndeed audit=true\n"
		jsonLines  = `{"level":"info","pid":7,"user":"a b","list":["x","y"],"time":"2026-01-02T03:04:05.678Z","message":"hello 'you'"}
{"level":"info","event":"build","drv":"x.drv","time":"2026-01-02T03:04:05.678Z","message":"built x.drv"}
{"level":"error","error":"fetch https://host/x: no","time":"2026-01-02T03:04:05.678Z","message":"failed"}
{"audit":true,"time":"2026-01-02T03:04:05.678Z","message":"deed"}
`
		marked = "<5>hello 'you' list=x,y pid=7 user=\"a b\"\n<5>built x.drv\n<3>failed error=\"fetch https://host/x: no\"\n<5>deed audit=true\n"
	)
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"file":            {Options{}, jsonLines},
		"terminal":        {Options{Terminal: true}, humanLines},
		"IN_SYSTEMD":      {Options{Systemd: true}, marked},
		"people":          {Options{Format: Human}, humanLines},
		"json, terminal":  {Options{Format: JSON, Terminal: true}, jsonLines},
		"journal is gone": {Options{ToJournal: true}, marked},
		"as upstream says": {Options{Format: Internal}, `@nix {"action":"msg","level":3,"msg":"hello 'you' list=x,y pid=7 user=\"a b\""}` + "\n" +
			`@nix {"action":"msg","level":3,"msg":"built x.drv"}` + "\n" +
			`@nix {"action":"msg","level":0,"msg":"failed error=\"fetch https://host/x: no\""}` + "\n" +
			`@nix {"action":"msg","level":3,"msg":"deed audit=true"}` + "\n"},
	} {
		var out bytes.Buffer
		tt.o.Out, tt.o.Level, tt.o.Now = &out, zerolog.InfoLevel, clock
		tt.o.Send = func(string, journal.Priority, map[string]string) error { return errors.New("nobody there") }
		say(New(tt.o))
		if diff := cmp.Diff(tt.want, out.String()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Nobody forges entries, nor does anything to an administrator's terminal, by what is told of them.
func TestOneEntry(t *testing.T) {
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"people":     {Options{Format: Human}, "deed: a\n    audit: b?[2Jc\td\n"},
		"IN_SYSTEMD": {Options{Systemd: true}, "<3>deed: a\n<3>    audit: b?[2Jc\td\n"},
		"json":       {Options{Format: JSON}, `{"level":"error","time":"2026-01-02T03:04:05.678Z","message":"deed: a\naudit: b\u001b[2Jc\td\n"}` + "\n"},
	} {
		var out bytes.Buffer
		tt.o.Out, tt.o.Now = &out, clock
		l := New(tt.o)
		l.Error().Msg("deed: a\naudit: b\x1b[2Jc\td\n")
		if diff := cmp.Diff(tt.want, out.String()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestJournal(t *testing.T) {
	type entry struct {
		Message  string
		Priority journal.Priority
		Vars     map[string]string
	}
	var got []entry
	var out bytes.Buffer
	say(New(Options{Out: &out, ToJournal: true, Level: zerolog.InfoLevel, Send: func(m string, p journal.Priority, v map[string]string) error {
		got = append(got, entry{m, p, v})
		return nil
	}}))
	const id = "nix-daemon"
	want := []entry{
		{"hello 'you'", journal.PriInfo, map[string]string{"SYSLOG_IDENTIFIER": id, "NIX_PID": "7", "NIX_USER": "a b", "NIX_LIST": "x,y"}},
		{"built x.drv", journal.PriInfo, map[string]string{"SYSLOG_IDENTIFIER": id, "NIX_EVENT": "build", "NIX_DRV": "x.drv"}},
		{"failed", journal.PriErr, map[string]string{"SYSLOG_IDENTIFIER": id, "NIX_ERROR": "fetch https://host/x: no"}},
		{"deed", journal.PriNotice, map[string]string{"SYSLOG_IDENTIFIER": id, "NIX_AUDIT": "true"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || out.Len() != 0 {
		t.Errorf("%q, %s", out.String(), diff)
	}
}

func TestScrub(t *testing.T) {
	for line, want := range map[string]string{
		"https://user:pass@host/a and s3://KEY@bucket": "https://host/a and s3://bucket",
		"https://host/a@b":                           "https://host/a@b",
		"mail me@host, see https://host":             "mail me@host, see https://host",
		`{"url":"https://a:b@c","x":"ssh-ng://d@e"}`: `{"url":"https://c","x":"ssh-ng://e"}`,
		"https://a:b@@c 'https://x@y'":               "https://c 'https://y'",
	} {
		if got := string(Scrub([]byte(line))); got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}

func BenchmarkJSON(b *testing.B) {
	var out bytes.Buffer
	l := New(Options{Out: &out, Format: JSON})
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		l.Info().Int("pid", 7).Str("user", "alice").Bool("trusted", true).Msg("accepted connection from pid 7, user alice (trusted)")
	}
}
