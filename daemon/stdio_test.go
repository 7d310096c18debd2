package daemon

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/settings"
)

func TestWatchReader(t *testing.T) {
	for _, hangUp := range []bool{true, false} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		gone := make(chan struct{})
		stop, err := watchReader(int(w.Fd()), func() { close(gone) })
		if err != nil {
			t.Fatal(err)
		}
		if hangUp {
			io.WriteString(w, "unread") // does not hide it
			r.Close()
			<-gone
		}
		stop()
		r.Close()
		if !hangUp {
			select {
			case <-gone:
				t.Error("told of a reader that was there")
			default:
			}
		}
	}
}

// TestThroughDaemon goes to a daemon only where that does all that we could.
func TestThroughDaemon(t *testing.T) {
	auto := settings.StoreReference{}
	named, err := settings.ParseStoreReference("local?root=/x")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		ref     settings.StoreReference
		trusted bool
		running bool
		want    bool
	}{
		{"trusted", auto, true, true, true},
		{"not trusted", auto, false, true, false},
		{"no daemon", auto, true, false, false},
		{"a store that was named", named, true, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			socket := "/none/socket"
			if tt.running {
				socket = trustingDaemon(t, tt.trusted)
			}
			cfg := &config.Config{SocketPath: socket, Store: config.StoreConfig{Kind: config.StoreLocal, Reference: tt.ref, StoreDir: "/nix/store"}}
			got := throughDaemon(t.Context(), cfg)
			if through := got.Store.Kind == config.StoreRemote && got.Store.SocketPath == socket; through != tt.want {
				t.Errorf("store %+v", got.Store)
			}
			if cfg.Store.Kind != config.StoreLocal {
				t.Error("the configuration was changed")
			}
		})
	}
}

// trustingDaemon answers greetings and no more.
func trustingDaemon(t *testing.T, trusted bool) string {
	t.Helper()
	trust := protocol.NotTrusted
	if trusted {
		trust = protocol.Trusted
	}
	socket, _ := start(t, &Server{Policy: everybody, Serve: func(_ context.Context, s io.ReadWriter, _ Peer) error {
		_, out, err := protocol.ServerHandshake(wire.NewReader(s), wire.NewWriter(s), storepath.DefaultDir,
			protocol.DaemonVersion(), protocol.ServerInfo{Trust: trust})
		if err != nil {
			return err
		}
		out.Frame(protocol.FrameLast)
		return out.Flush()
	}})
	return socket
}

func TestPlainLog(t *testing.T) {
	var out strings.Builder
	l := &plainLog{out: &out, level: activity.Info}
	tell := func() {
		l.Message(activity.Warn, "\x1b[35;1mwarning:\x1b[0m w")
		l.Message(activity.Talkative, "talk")
		l.Start(1, activity.Info, activity.Build, "building 'x'", nil, 0)
		l.Start(2, activity.Info, activity.Build, "", nil, 0)
		l.Result(1, activity.BuildLogLine, []activity.Field{activity.Text("line")})
		l.Result(1, activity.PostBuildLogLine, []activity.Field{activity.Text("hooked")})
		l.Result(1, activity.Progress, []activity.Field{activity.Number(1)})
		l.Result(1, activity.BuildLogLine, nil)
		l.Stop(1)
	}
	tell()
	l.quiet()
	tell()
	want := "warning: w\nbuilding 'x'...\nline\npost-build-hook: hooked\nline\npost-build-hook: hooked\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
