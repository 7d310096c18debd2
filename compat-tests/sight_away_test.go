package compat

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestSightOfAway looks at daemons whose store is a binary cache, or in memory: before anything is built there, and while
// another machine builds for somebody.
func TestSightOfAway(t *testing.T) {
	clients := requireClients(t)
	c := clients[len(clients)-1]
	for name, store := range map[string]string{"cache": "file://%s/cache?compression=none", "memory": "dummy://?read-only=false"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScratch(t)
			s.configureClient(t, c)
			s.configure(t, fmt.Sprintf("trusted-users = *\nsystem-features = away\nbuilders = ssh-ng://localhost?remote-program=%s&remote-store=local - - 2 1 away away\n",
				c.program("nix-daemon").path))
			if strings.Contains(store, "%s") {
				store = fmt.Sprintf(store, s.root)
			}
			d := startDaemon(t, s, shared.daemon, daemonOptions{env: []string{"NIX_REMOTE=" + store}})
			nothing := func() {
				t.Helper()
				for _, args := range [][]string{{"cancel", "talks"}, {"log", "--follow", "talks"}, {"log", "talks"}} {
					out, err := s.look(t, c, "", args...)
					wantRefused(t, out, err, "there is no such build as 'talks'")
				}
				if v := s.sight(t, c, ""); len(v.Servers) != 1 || len(v.Servers[0].Builds) > 0 || v.Servers[0].State != "serving" {
					t.Errorf("status %+v", v)
				}
			}
			nothing()
			if name == "memory" { // which takes no derivations from those who evaluate
				mustStop(t, d)
				return
			}
			free := s.path("tmp/free")
			ask := func(name, free string) *asking {
				expr := strings.Replace(talker(name, free), "{", `{ requiredSystemFeatures = [ "away" ];`, 1)
				return s.ask(t, c, "", "nix-build", build(expr)...)
			}
			first, second := ask("talks", free), ask("talks-too", s.path("tmp/never"))
			for name, asked := range map[string]*asking{"talks": first, "talks-too": second} {
				s.await(t, c, name, func(v *sighted) bool {
					select {
					case <-asked.done:
						t.Fatalf("%v\n%s", asked.err, asked.stderr.String())
					default:
					}
					state, _, _, line, users, _, ok := v.build(name)
					return ok && state == "running" && line == "say three" && users == "root"
				})
			}
			follow := s.looking(t, c, "", "log", "--follow", "talks.drv")
			var followed strings.Builder
			follow.Stdout = &followed
			if err := follow.Start(); err != nil {
				t.Fatal(err)
			}
			if out, err := s.look(t, c, "", "cancel", "talks-too"); err != nil || !strings.HasSuffix(out, "-talks-too.drv'") {
				t.Errorf("cancel: %q, %v", out, err)
			}
			if <-second.done; second.err == nil || !strings.Contains(second.stderr.String(), "was cancelled by user 'root'") {
				t.Errorf("what was cancelled: %v\n%s", second.err, second.stderr.String())
			}
			if err := os.WriteFile(free, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			// The client does not find the derivation in the directory that the cache stands for, when all is done.
			if <-first.done; !strings.Contains(first.stderr.String(), "-talks' from 'ssh-ng://localhost' to 'file://") {
				t.Errorf("what goes on: %v\n%s", first.err, first.stderr.String())
			}
			if err := follow.Wait(); err != nil || !strings.HasSuffix(said(followed.String()), "say 2000\nsay last") {
				t.Errorf("read along: %v\n%s", err, followed.String())
			}
			s.await(t, c, "the end", func(v *sighted) bool { return len(v.Servers[0].Builds) == 0 })
			nothing()
			mustStop(t, d)
		})
	}
}
