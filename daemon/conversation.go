package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol/activity"
	"nixdaemon/worker"
	"nixdaemon/worker/serving"
)

// converse answers over the serve protocol.
func (b *local) converse(ctx context.Context, stream io.ReadWriter, peer Peer, write bool) error {
	return conversation(ctx, stream, b.cfg, serving.Options{
		Store: b.store, Builder: b.builder, Roots: b.store.NewTempRoots(), Write: write, User: peer.User, Client: peer.Client, Observer: peer.Observer,
	})
}

// conversation serves, and tells what happens on standard error, which is where
// those at the other end see it.
func conversation(ctx context.Context, stream io.ReadWriter, cfg *config.Config, o serving.Options) error {
	log := &plainLog{out: os.Stderr, level: activity.Level(cfg.Settings.Verbosity)}
	// Whoever sees all of a builder's log needs not see its end again when it fails (SimpleLogger::isVerbose).
	o.Settings = cfg.Settings.Clone()
	o.Settings.LogLines = 0
	o.Log, o.Quiet = log, log.quiet
	err := serving.Serve(ctx, stream, o)
	if err == nil {
		return nil
	}
	text, _ := worker.ErrorText(err)
	return errors.New(strings.TrimPrefix(marks().ReplaceAllString(text, ""), "error: "))
}

// plainLog shows what happens as lines of text, as upstream's commands do
// (libutil/logging.cc, SimpleLogger).
type plainLog struct {
	out io.Writer

	mu    sync.Mutex
	level activity.Level
}

var _ activity.Sink = (*plainLog)(nil)

// quiet shows no more than errors from now on.
func (l *plainLog) quiet() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.level = activity.Error
}

// marks are those of terminals.
var marks = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]") })

// Message shows a message.
func (l *plainLog) Message(level activity.Level, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if level <= l.level {
		fmt.Fprintln(l.out, strings.TrimSuffix(marks().ReplaceAllString(text, ""), "\n"))
	}
}

// Start shows what an activity is about.
func (l *plainLog) Start(_ activity.ID, level activity.Level, _ activity.Type, text string, _ []activity.Field, _ activity.ID) {
	if text != "" {
		l.Message(level, text+"...")
	}
}

// Stop shows nothing.
func (l *plainLog) Stop(activity.ID) {}

// Result shows what builds and hooks print.
func (l *plainLog) Result(_ activity.ID, kind activity.ResultType, fields []activity.Field) {
	if len(fields) == 0 {
		return
	}
	switch kind {
	case activity.BuildLogLine:
		l.Message(activity.Error, fields[0].Text)
	case activity.PostBuildLogLine:
		l.Message(activity.Error, "post-build-hook: "+fields[0].Text)
	}
}
