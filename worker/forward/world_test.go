package forward_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/forward"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/workertest"
)

// outer says how the daemon in front is set up; zero is the usual way.
type outer struct {
	socket    string
	dir       storepath.Dir
	version   uint8 // offered to the inner daemon; 0 is all
	untrusted bool
	settings  *settings.Settings
}

// serve gives the socket of a daemon that forwards.
func (o outer) serve(t testing.TB) string {
	if o.settings == nil {
		o.settings = workertest.Settings()
	}
	var ids activity.IDs
	return workertest.Listen(t, func(ctx context.Context, conn net.Conn) {
		options := forward.Options{Dial: client.Unix(o.socket), Name: "unix://" + o.socket, Dir: o.dir, Settings: o.settings}
		if o.version != 0 {
			options.Version = protocol.Version{Number: protocol.Minor(o.version)}
		}
		b := forward.New(options)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		err := worker.Serve(ctx, hangup{conn, cancel}, worker.Options{
			Store: b, Builder: b, Collector: b, Substituter: b, Roots: b.Roots(), Keys: workertest.NoKeys, NixVersion: "2.34.8",
			Settings: o.settings, IDs: &ids, User: "bob", Trusted: !o.untrusted, Log: zerolog.Nop(),
		})
		if err != nil && !strings.Contains(err.Error(), "closed") {
			t.Logf("served: %v", err)
		}
	})
}

// hangup is a stream whose failing writes end what is done for its reader, as
// package daemon does when a client goes away.
type hangup struct {
	net.Conn
	gone context.CancelFunc
}

func (h hangup) Write(p []byte) (int, error) {
	n, err := h.Conn.Write(p)
	if err != nil {
		h.gone()
	}
	return n, err
}

// connect gives a client of a socket that offers 1.minor; 0 is all.
func connect(t testing.TB, socket string, dir storepath.Dir, minor uint8, log activity.Sink) *client.Client {
	o := client.Options{Dial: client.Unix(socket), Dir: dir, MaxConns: 1, Log: log, Features: derivation.AllFeatures()}
	if minor != 0 {
		o.Version = protocol.Version{Number: protocol.Minor(minor)}
	}
	c := client.New(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// message strips what is marked in an error's text.
func message(err error) string {
	if err == nil {
		return ""
	}
	return strings.NewReplacer("\x1b[35;1m", "", "\x1b[0m", "").Replace(err.Error())
}

// recorder keeps what a daemon tells.
type recorder struct {
	mu       sync.Mutex
	messages []string
	results  []string
}

func (r *recorder) Message(_ activity.Level, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, text)
}
func (r *recorder) Start(activity.ID, activity.Level, activity.Type, string, []activity.Field, activity.ID) {
}
func (r *recorder) Stop(activity.ID) {}
func (r *recorder) Result(_ activity.ID, kind activity.ResultType, fields []activity.Field) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if kind == activity.BuildLogLine {
		r.results = append(r.results, fields[0].Text)
	}
}

var errDone = errors.New("done")

// zeros is n bytes of nothing.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }
