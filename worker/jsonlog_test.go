package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/worker/session"
)

// closing is a buffer that notes its end.
type closing struct {
	mu sync.Mutex
	bytes.Buffer
	closed bool
	fail   bool
}

func (c *closing) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail {
		return 0, errors.New("no space left on \"/device\"")
	}
	return c.Buffer.Write(p)
}

func (c *closing) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func TestJSONLog(t *testing.T) {
	w := newWorld(t)
	file := &closing{}
	w.jsonLog = func() (io.WriteCloser, error) { return file, nil }
	w.builder.do = func(_ context.Context, s *session.Session) error {
		s.Log.Message(activity.Info, "hello")
		s.Log.Message(activity.Debug, "not wanted")
		s.Log.Start(7, activity.Info, activity.Build, "building", nil, 0)
		s.Log.Result(7, activity.BuildLogLine, []activity.Field{activity.Text("line")})
		s.Log.Stop(7)
		return nil
	}
	p := w.dial(false, minor(38))
	p.send(protocol.OpEnsurePath, func(to *protocol.Writer) { aFile(w, to) })
	p.mustWork()
	p.end()
	want := `{"action":"msg","level":3,"msg":"hello"}
{"action":"start","id":7,"level":3,"parent":0,"text":"building","type":105}
{"action":"result","fields":["line"],"id":7,"type":101}
{"action":"stop","id":7}
`
	if diff := cmp.Diff(want, file.String()); diff != "" || !file.closed {
		t.Errorf("closed: %v, %s", file.closed, diff)
	}
}

// A log that cannot be opened or written costs the client a word, nothing else.
func TestJSONLogFails(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]struct {
		open func() (io.WriteCloser, error)
		want []string
	}{
		"open": {func() (io.WriteCloser, error) { return nil, errors.New("opening log file \"/x\": Permission denied") },
			[]string{`error (ignored): opening log file "/x": Permission denied`, "hello"}},
		"write": {func() (io.WriteCloser, error) { return &closing{fail: true}, nil },
			[]string{`error (ignored): no space left on "/device"`, "warning: disabling JSON logger due to write errors", "hello"}},
	} {
		w.jsonLog = tt.open
		w.builder.do = func(_ context.Context, s *session.Session) error {
			s.Log.Message(activity.Info, "hello")
			return nil
		}
		p := w.dial(false, minor(38))
		p.send(protocol.OpEnsurePath, func(to *protocol.Writer) { aFile(w, to) })
		p.mustWork()
		if diff := cmp.Diff(tt.want, p.log.lines); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		p.end()
	}
}
