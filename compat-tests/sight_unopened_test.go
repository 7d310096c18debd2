package compat

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSightUnopened damages the store in several ways before a daemon starts. With either daemon it starts, each client
// fails, the daemon's log has the reason, and after a repair clients are served. Ours tells the reason to the client,
// too, and in its status.
func TestSightUnopened(t *testing.T) {
	schema := "var/nix/db/schema"
	database := "var/nix/db/db.sqlite"
	for name, c := range map[string]struct {
		file, content, reason string
	}{
		"newer schema":  {schema, "11", "current Nix store schema is version 11, but I only support 10"},
		"odd schema":    {schema, "ten", "/schema\" is corrupt"},
		"no database":   {database, strings.Repeat("what is this?", 1000), "file is not a database"},
		"empty":         {database, "", "no such table: ValidPaths"},
		"nothing there": {database, "-", "cannot open SQLite database"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			clients := requireClients(t)
			s := newScratch(t)
			for _, client := range clients {
				s.configureClient(t, client)
			}
			reference := clients[len(clients)-1]
			s.must(t, reference, []string{"NIX_REMOTE="}, "nix-store", "--init")
			good, err := os.ReadFile(s.path(c.file))
			if err != nil {
				t.Fatal(err)
			}
			damage := func() {
				t.Helper()
				err := os.WriteFile(s.path(c.file), []byte(c.content), 0o644)
				if c.content == "-" {
					err = os.Remove(s.path(c.file))
				}
				for _, beside := range []string{"-wal", "-shm"} {
					os.Remove(s.path(database) + beside)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			heal := func() {
				t.Helper()
				for _, beside := range []string{"-wal", "-shm"} {
					os.Remove(s.path(database) + beside)
				}
				if err := os.WriteFile(s.path(c.file), good, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			damage()
			d := startDaemon(t, s, shared.daemon, daemonOptions{})
			for _, client := range clients {
				if _, err := s.run(t, client, nil, "nix-store", "--gc", "--print-roots"); err == nil || !strings.Contains(err.Error(), c.reason) {
					t.Errorf("client %s: %v", client.version, err)
				}
			}
			if n := strings.Count(d.log.String(), `"level":"error"`); n != 1 {
				t.Errorf("the log has %d errors:\n%s", n, d.log.String())
			}
			if text, err := s.look(t, reference, "", "status"); err != nil || !strings.Contains(text, "cannot open the store: ") || !strings.Contains(text, c.reason) {
				t.Errorf("status: %v\n%s", err, text)
			}
			heal()
			for _, client := range clients {
				if _, err := s.run(t, client, nil, "nix-store", "--gc", "--print-roots"); err != nil {
					t.Errorf("after the repair: %v", err)
				}
			}
			if text, err := s.look(t, reference, "", "status"); err != nil || strings.Contains(text, "cannot open the store: ") {
				t.Errorf("status after the repair: %v\n%s", err, text)
			}
			mustStop(t, d)

			damage()
			theirs := startDaemon(t, s, reference.program("nix-daemon"), daemonOptions{})
			for _, client := range clients {
				if _, err := s.run(t, client, nil, "nix-store", "--gc", "--print-roots"); err == nil {
					t.Errorf("client %s is served by upstream's daemon", client.version)
				}
			}
			// Its workers write after their clients have gone.
			if err := poll(waitLimit, func() error {
				if !strings.Contains(plainText(theirs.log.String()), c.reason) {
					return errors.New("upstream's log lacks the reason:\n" + theirs.log.String())
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			heal()
			if _, err := s.run(t, reference, nil, "nix-store", "--gc", "--print-roots"); err != nil {
				t.Errorf("upstream's daemon after the repair: %v", err)
			}
			mustStop(t, theirs)
		})
	}
}

// plainText is without a terminal's marks.
func plainText(s string) string {
	for _, mark := range []string{"\x1b[31;1m", "\x1b[35;1m", "\x1b[0m"} {
		s = strings.ReplaceAll(s, mark, "")
	}
	return s
}

// TestSightReloadUnopened: where a server has the store open, one that cannot open it does not take its place.
func TestSightReloadUnopened(t *testing.T) {
	c := requireClients(t)[0]
	s := newScratch(t)
	s.configureClient(t, c)
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	path := s.must(t, c, nil, "nix-store", "--add", filepath.Join(s.path("home"), "."))
	good, err := os.ReadFile(s.path("var/nix/db/schema"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("var/nix/db/schema"), []byte("11"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := poll(waitLimit, func() error {
		if !strings.Contains(d.log.String(), "the new server did not start; the old one goes on") {
			return fmt.Errorf("no such line:\n%s", d.log.String())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("var/nix/db/schema"), good, 0o644); err != nil {
		t.Fatal(err)
	}
	s.must(t, c, nil, "nix-store", "--query", "--hash", path)
	mustStop(t, d)
}
