package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/daemon/status/daemonlog"
	"nixdaemon/daemon/status/metrics"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute"
)

func testWatcher(t *testing.T, audit string) (w *watcher, log *bytes.Buffer) {
	t.Helper()
	log = new(bytes.Buffer)
	cfg := &config.Config{Settings: &settings.Settings{AuditLogFile: audit}, Store: config.StoreConfig{StoreDir: "/nix/store"}}
	lines := daemonlog.New(daemonlog.Options{Out: log, Format: daemonlog.JSON, Level: zerolog.InfoLevel})
	w, err := newWatcher(cfg, lines, lines)
	if err != nil {
		t.Fatal(err)
	}
	return w, log
}

// messages are those of a log's lines.
func messages(t *testing.T, log string) []string {
	t.Helper()
	var texts []string
	for line := range strings.Lines(log) {
		var l struct{ Message, Event string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		texts = append(texts, l.Event+": "+l.Message)
	}
	return texts
}

func TestLinesOfEnds(t *testing.T) {
	w, log := testWatcher(t, "")
	now := time.Now()
	p, err := storepath.ParseBase("00000000000000000000000000000000-x.drv")
	if err != nil {
		t.Fatal(err)
	}
	ended, began := now, now.Add(-1500*time.Millisecond)
	queued := build.QueuedBuild{Drv: p, For: build.ClientID{User: "alice"}, Time: now.Add(-2 * time.Second)}
	w.BuildEnded(1, build.EndedBuild{QueuedBuild: queued, Began: began, Ended: ended, Machine: "ssh://u:secret@far"})
	w.BuildEnded(2, build.EndedBuild{QueuedBuild: queued, Began: began, Ended: ended, Status: derivation.StatusPermanentFailure, Err: &build.Failure{Status: derivation.StatusPermanentFailure,
		Msg: build.Text{}}})
	w.BuildEnded(3, build.EndedBuild{QueuedBuild: queued, Ended: ended, Err: errors.New("Cannot build.\nReason: builder failed with exit code 1.\nLast 1 log lines:\n> secret")})
	w.FetchEnded(substitute.Fetch{Path: p, Cache: "https://u:secret@cache?x=secret", User: "bob", Began: began}, substitute.FetchEnd{Done: 5, Ended: ended})
	w.FetchEnded(substitute.Fetch{Path: p, Cache: "https://cache", User: "bob", Began: began}, substitute.FetchEnd{Ended: ended, Err: errors.New("unable to download 'https://u:secret@cache/x'")})
	w.CollectionEnded(gc.Collection{Action: gc.DeleteDead, For: "root", Began: began}, gc.CollectionEnd{Paths: 3, BytesFreed: 4, Ended: ended})
	w.CollectionEnded(gc.Collection{Action: gc.ReturnLive, Began: began}, gc.CollectionEnd{Ended: ended, Err: errors.New("interrupted")})
	w.close()
	if strings.Contains(log.String(), "secret") {
		t.Errorf("the log tells secrets:\n%s", log)
	}
	const drv = "/nix/store/00000000000000000000000000000000-x.drv"
	want := []string{
		"build: built '" + drv + "' for alice on 'ssh://far' in 1.5s",
		"build: build of '" + drv + "' for alice ended after 1.5s: PermanentFailure: ",
		"build: build of '" + drv + "' for alice ended after 0s: Abandoned: builder failed with exit code 1",
		"substitution: fetched '" + drv + "' from 'https://cache' for bob in 1.5s",
		"substitution: fetching '" + drv + "' from 'https://cache' for bob failed after 1.5s: unable to download 'https://cache/x'",
		"collection: collection (delete-dead) for root ended after 1.5s: 3 paths, 4 bytes",
		"collection: collection (return-live) for the daemon itself ended after 1.5s: 0 paths, 0 bytes: interrupted",
	}
	if diff := cmp.Diff(want, messages(t, log.String())); diff != "" {
		t.Error(diff)
	}
}

func TestLinesOfConnections(t *testing.T) {
	w, log := testWatcher(t, "")
	peer := Peer{Identity: Identity{PID: 7, User: "alice", Known: true}, Client: 3}
	c := w.Connected(Connection{Peer: peer})
	c.OpBegan(protocol.OpIsValidPath)
	c.OpEnded(protocol.OpIsValidPath, errors.New("x"))
	c.Disconnected(errors.New("out of \x1b[35;1mstep\x1b[0m"))
	w.refused(&RefusedError{"eve"})
	w.refused(&CrowdedError{})
	w.refused(errors.New("x"))
	w.close()
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if text := line["message"].(string); !strings.HasPrefix(text, "connection of alice (pid 7) ended after ") || !strings.HasSuffix(text, ": 1 requests, 1 failed") {
		t.Errorf("message %q", text)
	}
	if line["error"] != "out of step" || line["user"] != "alice" || line["requests"] != 1.0 || line["connection"] != 3.0 {
		t.Errorf("fields %v", line)
	}
	var numbers bytes.Buffer
	w.Registry.WriteTo(&numbers)
	for _, want := range []string{`reason="policy"} 1`, `reason="limit"} 1`, `reason="error"} 1`, `operation_failures_total{op="IsValidPath"} 1`} {
		if !strings.Contains(numbers.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestTrail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit")
	w, log := testWatcher(t, file)
	peer := Peer{Identity: Identity{PID: 7, UID: 1000, User: "alice", Known: true}, Client: 3, Trusted: true}
	w.audit(peer, worker.Privilege{Action: worker.ActionRepair, Subject: []string{"/nix/store/x"}, Details: map[string]uint64{"paths": 1}})
	w.audit(peer, worker.Privilege{Action: worker.ActionLog, Err: errors.New("you are not privileged"), Refused: true})
	w.audit(peer, worker.Privilege{Action: worker.ActionCollect, Err: errors.New("disk is full")})
	w.close()
	want := []string{
		"audit: audit: repair by alice (pid 7): /nix/store/x: done",
		"audit: audit: add-build-log by alice (pid 7): refused: you are not privileged",
		"audit: audit: collect-garbage by alice (pid 7): failed: disk is full",
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for where, lines := range map[string]string{"log": log.String(), "file": string(text)} {
		if diff := cmp.Diff(want, messages(t, lines)); diff != "" {
			t.Errorf("%s: %s", where, diff)
		}
	}
	for _, field := range []string{`"audit":true`, `"uid":1000`, `"trusted":true`, `"subject":["/nix/store/x"]`, `"paths":1`, `"outcome":"refused"`, `"connection":3`} {
		if !strings.Contains(string(text), field) {
			t.Errorf("no %s in %s", field, text)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := openTrail("/no/such/directory/file", zerolog.Nop()); err == nil {
		t.Error("a trail that cannot be written")
	}
}

// slowLog is written to one line at a time, when a token comes.
type slowLog struct {
	mu   sync.Mutex
	gate chan struct{}
	text bytes.Buffer
}

func (s *slowLog) Write(p []byte) (int, error) {
	<-s.gate
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// TestLinesNeverWait: whoever has something to tell goes on though nobody
// writes, and what could not be written is counted.
func TestLinesNeverWait(t *testing.T) {
	out := &slowLog{gate: make(chan struct{})}
	q := startLines(zerolog.New(out))
	const more = 100
	for range 1 + mostLines + more {
		q.add(func(l *zerolog.Logger) { l.Info().Msg("line") })
	}
	close(out.gate)
	q.close()
	q.add(func(*zerolog.Logger) { t.Error("a line after the end") })
	text := out.text.String()
	// The first line may or may not have left the queue before it was full.
	n := strings.Count(text, `"line"`)
	if !strings.Contains(text, "were dropped") || n < mostLines || n > mostLines+1 {
		t.Errorf("%d lines of %d", n, 1+mostLines+more)
	}
}

func TestServeMetrics(t *testing.T) {
	var numbers metrics.Registry
	numbers.Counter("x_total", "x").Inc()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	until := make(chan struct{})
	var log slowLog
	log.gate = make(chan struct{})
	close(log.gate)
	stop := serveMetrics(address, &numbers, until, zerolog.New(&log))
	defer stop()
	l.Close() // as when the server before lets go
	var text []byte
	for text == nil { // until it has tried again
		if resp, err := http.Get("http://" + address + "/metrics"); err == nil {
			text, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
	}
	if !strings.Contains(string(text), "x_total 1") {
		t.Errorf("got %q", text)
	}
	close(until)
	stop()
	serveMetrics("", &numbers, until, zerolog.Nop())()
}
