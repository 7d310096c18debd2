package compat

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestSightOfForwarding looks at a daemon whose store is another daemon's: what clients wait for is seen, and how that
// ended is in the log.
func TestSightOfForwarding(t *testing.T) {
	for _, c := range requireClients(t) {
		t.Run(c.version, func(t *testing.T) {
			t.Parallel()
			s := newScratch(t)
			s.configureClient(t, c)
			socket := s.path("behind.socket")
			startDaemon(t, s, shared.clients[referenceVersion].program("nix-daemon"), daemonOptions{
				socket: socket, env: []string{"NIX_DAEMON_SOCKET_PATH=" + socket},
			})
			d := startDaemon(t, s, shared.daemon, daemonOptions{env: []string{"NIX_REMOTE=unix://" + socket}})
			cmd, begun, proceed := s.startWaiting(t, c, "handed-on")
			begun()
			s.await(t, c, "the build", func(v *sighted) bool {
				state, reason, _, _, users, _, ok := v.build("handed-on")
				return ok && state == "waiting" && reason == "another daemon" && users == "root" && len(v.Servers[0].Connections) == 1
			})
			if text, err := s.look(t, c, "", "status"); err != nil || !strings.Contains(text, "handed-on") || strings.Contains(text, "slots") {
				t.Errorf("%v\n%s", err, text)
			}
			for _, args := range [][]string{{"cancel", "handed-on"}, {"log", "--follow", "handed-on"}} {
				out, err := s.look(t, c, "", args...)
				wantRefused(t, out, err, "there is no such build here: 'handed-on' is the work of another daemon, which is to be asked")
			}
			proceed()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			failing := s.ask(t, c, "", "nix-build", build(shell("fails-there", "echo not for the log; exit 1"))...)
			if <-failing.done; failing.err == nil {
				t.Error("the failing build succeeds")
			}
			s.await(t, c, "the end", func(v *sighted) bool {
				return len(v.Servers[0].Builds) == 0 && len(v.Servers[0].Connections) == 0
			})
			if err := poll(sightLimit, func() error {
				if n := strings.Count(d.log.String(), `"event":"connection"`); n < 2 {
					return fmt.Errorf("%d connections have ended", n)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			ended := make(map[string]string)
			for line := range strings.Lines(d.log.String()) {
				var l struct {
					Event, User, Status, Daemon, Error, Message string
					Drv                                         []string
				}
				if json.Unmarshal([]byte(line), &l) != nil || l.Event != "build-request" {
					continue
				}
				if len(l.Drv) != 1 || l.User != "root" || l.Daemon != "unix://"+socket || !strings.Contains(l.Message, l.Drv[0]) {
					t.Errorf("line %s", line)
					continue
				}
				_, name, _ := strings.Cut(l.Drv[0], "-")
				if ended[name] = l.Status; (l.Error != "") != (l.Status != "done") {
					t.Errorf("error %q in %s", l.Error, line)
				}
			}
			if len(ended) != 2 || ended["handed-on.drv"] != "done" || ended["fails-there.drv"] != "failed" {
				t.Errorf("the log tells %v\n%s", ended, d.log.String())
			}
			if strings.Contains(d.log.String(), "not for the log") {
				t.Error("what a builder prints is in the daemon's log")
			}
		})
	}
}
