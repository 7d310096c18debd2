package compat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// watched is a daemon whose log, audit trail and numbers are looked at.
type watched struct {
	*daemon
	t       *testing.T
	address string
	audit   string // the file
}

func startWatched(t *testing.T, s scratch, o daemonOptions) *watched {
	t.Helper()
	w := &watched{t: t, audit: s.path("audit.log")}
	o.args = append(o.args, "--metrics-listen-address", "127.0.0.1:0", "--audit-log-file", w.audit)
	w.daemon = startDaemon(t, s, shared.daemon, o)
	line := w.await("its address", func(l logLine) bool { return l["message"] == "serving metrics" })
	w.address = line["address"].(string)
	return w
}

// logLine is a line of the log, or of the trail.
type logLine map[string]any

// logLines are those of a text that are objects: what is wrong with the command
// line, say, is told as text.
func logLines(text string) (all []logLine) {
	for line := range strings.Lines(text) {
		var l logLine
		if json.Unmarshal([]byte(line), &l) == nil {
			all = append(all, l)
		}
	}
	return all
}

// await waits for a line of the log.
func (w *watched) await(what string, is func(logLine) bool) (found logLine) {
	w.t.Helper()
	if err := poll(waitLimit, func() error {
		for _, l := range logLines(w.log.String()) {
			if is(l) {
				found = l
				return nil
			}
		}
		return fmt.Errorf("the log has no line about %s:\n%s", what, w.log.String())
	}); err != nil {
		w.t.Fatal(err)
	}
	return found
}

// event waits for a line about the end of something, with these fields.
func (w *watched) event(name string, fields logLine) logLine {
	w.t.Helper()
	return w.await(fmt.Sprint("the end of ", name, " ", fields), func(l logLine) bool {
		if l["event"] != name {
			return false
		}
		for field, value := range fields {
			if l[field] != value {
				return false
			}
		}
		return true
	})
}

// numbers reads what is told to Prometheus, by name and labels as they are
// written.
func (w *watched) numbers() map[string]float64 {
	w.t.Helper()
	resp, err := http.Get("http://" + w.address + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatal(resp.Status, err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if name += "}"; !ok {
			name, value, ok = strings.Cut(strings.TrimSpace(line), " ")
		}
		n, err := strconv.ParseFloat(value, 64)
		if ok && err == nil && !strings.HasPrefix(line, "#") {
			all[name] = n
		}
	}
	return all
}

// want waits until numbers are what they should be: what a client has been told
// is counted, but the ends of some things only come afterwards.
func (w *watched) want(numbers map[string]float64) {
	w.t.Helper()
	if err := poll(waitLimit, func() (err error) {
		have := w.numbers()
		for name, n := range numbers {
			if have[name] != n {
				err = errors.Join(err, fmt.Errorf("%s is %v, want %v", name, have[name], n))
			}
		}
		return err
	}); err != nil {
		w.t.Error(err)
	}
}

// TestWatched has clients do a known amount of work and looks at what the
// numbers, the log and the audit trail say of it.
func TestWatched(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		w := startWatched(t, s, daemonOptions{})
		file := s.path("home/file")
		if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		s.must(t, c, nil, "nix-store", "--add", file)
		out := s.must(t, c, nil, "nix-build", build(shell("good", "echo word; echo > $out"))...)
		if _, err := s.run(t, c, nil, "nix-build", build(shell("bad", "echo secret-word; exit 3"))...); err == nil {
			t.Error("a bad build is good")
		}
		w.want(map[string]float64{
			`nix_daemon_builds_total{status="Built",machine="local"}`:            1,
			`nix_daemon_builds_total{status="PermanentFailure",machine="local"}`: 1,
			`nix_daemon_build_duration_seconds_count{outcome="built"}`:           1,
			`nix_daemon_build_duration_seconds_count{outcome="failed"}`:          1,
			`nix_daemon_build_slots`:                                                       max(1, w.numbers()["nix_daemon_build_slots"]),
			`nix_daemon_build_slots_used`:                                                  0,
			`nix_daemon_user_builds_total{user="root"}`:                                    2,
			`nix_daemon_connections{state="idle"}`:                                         0,
			`nix_daemon_connections{state="busy"}`:                                         0,
			`nix_daemon_privileged_actions_total{action="collect-garbage",outcome="done"}`: 0,
		})
		w.event("build", logLine{"user": "root", "status": "Built"})
		if l := w.event("build", logLine{"user": "root", "status": "PermanentFailure"}); !strings.HasSuffix(fmt.Sprint(l["error"]), "failed with exit code 3") {
			t.Errorf("the failure's line is %v", l)
		}
		w.event("connection", logLine{"user": "root", "trusted": true})

		s.must(t, c, nil, "nix-store", "--delete", out)
		w.want(map[string]float64{
			`nix_daemon_gc_runs_total{action="delete-specific",outcome="done"}`:            1,
			`nix_daemon_privileged_actions_total{action="collect-garbage",outcome="done"}`: 1,
		})
		w.event("collection", logLine{"user": "root", "action": "delete-specific", "status": "done"})
		trail, err := os.ReadFile(w.audit)
		if err != nil {
			t.Fatal(err)
		}
		all := logLines(string(trail))
		if l := all[len(all)-1]; l["audit"] != true || l["action"] != "collect-garbage" || l["user"] != "root" || l["deleted_paths"] != 1.0 {
			t.Errorf("the last line of the trail is %v", l)
		}
		w.event("audit", logLine{"action": "collect-garbage", "outcome": "done"})

		accepted := 0.0
		for _, l := range logLines(w.log.String()) {
			if text, _ := l["message"].(string); strings.HasPrefix(text, "accepted connection from pid ") && strings.HasSuffix(text, ", user root (trusted)") {
				accepted++
			}
		}
		w.want(map[string]float64{`nix_daemon_connections_accepted_total{trusted="true"}`: accepted})
		n := w.numbers()
		for _, name := range []string{"nix_daemon_received_bytes_total", "nix_daemon_sent_bytes_total", "nix_daemon_database_commits_total",
			"nix_daemon_store_free_bytes", "process_open_fds", `nix_daemon_operation_duration_seconds_count{op="CollectGarbage"}`} {
			if n[name] <= 0 {
				t.Errorf("%s is %v", name, n[name])
			}
		}
		if strings.Contains(w.log.String(), "secret-word") {
			t.Error("the log tells what a builder has printed")
		}
		mustStop(t, w.daemon)
	})
}

// TestNoSecretsInLogs lets the daemon deal with everything that holds a
// password, at debugging level, and looks for it in all that it writes.
func TestNoSecretsInLogs(t *testing.T) {
	const secret = "s3cr3t-pa55"
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		netrc := s.path("netrc")
		if err := os.WriteFile(netrc, []byte("machine 127.0.0.1 login me password "+secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		web := newWeb(t)
		web.serve(s.path("home")) // where no cache is
		s.configure(t, "extra-experimental-features = configurable-impure-env impure-derivations ca-derivations\n"+
			"impure-env = TOKEN="+secret+"\nconnect-timeout = 1\ndownload-attempts = 1\n")
		w := startWatched(t, s, daemonOptions{args: []string{"--debug"}, env: []string{
			"AWS_ACCESS_KEY_ID=" + secret, "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_SESSION_TOKEN=" + secret,
		}})
		at := strings.TrimPrefix(web.url(), "http://")
		for _, cache := range []string{
			"http://me:" + secret + "@" + at + "/", "http://" + at + "/?token=" + secret,
			"s3://bucket?scheme=http&endpoint=" + at, "ssh-ng://me:" + secret + "@127.0.0.1:1",
		} {
			s.run(t, c, nil, "nix-store", "-r", s.path("store/00000000000000000000000000000000-nowhere"),
				"--option", "substituters", cache, "--option", "netrc-file", netrc, "--option", "fallback", "true")
		}
		s.run(t, c, nil, "nix-build", build(shell("told", "echo > $out"))...)
		w.event("build", logLine{"status": "Built"})
		w.event("audit", logLine{"action": "override-settings"})
		trail, err := os.ReadFile(w.audit)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Get("http://" + w.address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		numbers, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		mustStop(t, w.daemon)
		for where, text := range map[string]string{"log": w.log.String(), "audit trail": string(trail), "numbers": string(numbers)} {
			for line := range strings.Lines(text) {
				if strings.Contains(line, secret) {
					t.Errorf("a secret is in the %s: %s", where, line)
				}
			}
		}
	})
}

// tracedSpan is what a collector is sent of a span.
type tracedSpan struct {
	TraceID, SpanID, ParentSpanID, Name string
	Status                              struct{ Code int }
}

// collectSpans is a collector of traces.
func collectSpans(t *testing.T) (url string, spans func() map[string]tracedSpan) {
	var mu sync.Mutex
	found := map[string]tracedSpan{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var doc struct {
			ResourceSpans []struct {
				ScopeSpans []struct{ Spans []tracedSpan }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&doc); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, resource := range doc.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, span := range scope.Spans {
					found[span.Name] = span
					if span.Name == "connection" { // clients may have several
						found[span.SpanID] = span
					}
				}
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() map[string]tracedSpan {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(found)
	}
}

// TestTraces follows one build through the spans that a collector is sent.
func TestTraces(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		url, spans := collectSpans(t)
		d := startDaemon(t, s, shared.daemon, daemonOptions{args: []string{"--trace-endpoint", url}})
		script := `echo '@nix {"action":"setPhase","phase":"first"}' >&2; echo '@nix {"action":"setPhase","phase":"second"}' >&2; echo > $out`
		s.must(t, c, nil, "nix-build", build(shell("traced", script))...)
		var got map[string]tracedSpan
		if err := poll(waitLimit, func() error {
			got = spans()
			for _, name := range []string{"build", "builder", "phase first", "phase second", got["build"].ParentSpanID} {
				if _, ok := got[name]; !ok {
					return fmt.Errorf("no span %q among %v", name, got)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got[got["build"].ParentSpanID].Name != "connection" {
			t.Errorf("the build's parent is %v", got[got["build"].ParentSpanID])
		}
		for child, parent := range map[string]string{"build": got["build"].ParentSpanID, "builder": "build", "phase first": "builder", "phase second": "builder"} {
			if got[child].TraceID != got[parent].TraceID || got[child].ParentSpanID != got[parent].SpanID || got[child].Status.Code != 0 {
				t.Errorf("%s is %v, its parent %v", child, got[child], got[parent])
			}
		}
		mustStop(t, d)
	})
}
