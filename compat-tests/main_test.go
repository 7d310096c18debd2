// Package compat has the real Nix clients talk to a nix-daemon.
//
// A scenario is a script in testdata/script. Each is run for every client
// version, twice: against upstream's own newest daemon, the reference, and
// against the daemon under test, one after the other in the same directories.
// Whatever the client printed, its exit statuses, and the store, database,
// roots and logs left behind must then be the same, byte for byte. So nothing
// here says what Nix does; the reference does, and the scripts say only what
// makes a scenario worth running.
//
// What a script cannot say (how the daemon starts, ends and shares the store
// with others) stands in ordinary tests beside them.
//
// # Environment
//
//	NIXDAEMON_BINARY           the daemon under test, instead of building ours;
//	                           upstream's works as well (see README.md)
//	NIXDAEMON_CLIENTS          folder of clients (default ~/.cache/nixdaemon-compat)
//	NIXDAEMON_REQUIRE_CLIENTS  1: a missing client fails the tests; else they skip
//	NIXDAEMON_COMPAT_TMP       where stores go (default: the system's); keep it short
package compat

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// bench is what all tests share; static once TestMain has made it.
type bench struct {
	clients  map[string]client // by version, the installed ones
	missing  error             // why some client is not there
	daemon   program           // under test
	noDaemon error             // why there is none
}

var shared bench

func TestMain(m *testing.M) {
	serveIfAsked()
	heedSignals()
	os.Exit(run(m))
}

// heedSignals has what the tests start not ignore the signals that nohup, or a shell that runs the tests in the
// background, has us ignore: upstream's builders would, and builders see that. For us nothing changes.
func heedSignals() {
	dropped := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(dropped, sig)
		}
	}
}

func run(m *testing.M) int {
	if flag.Parse(); testing.Short() {
		return m.Run() // without fetching clients and building a daemon
	}
	tmp, err := os.MkdirTemp("", "nixdaemon-compat")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(tmp)
	shared.clients, shared.missing = findClients()
	if len(shared.clients) > 0 {
		shared.daemon, shared.noDaemon = findDaemon(tmp)
	}
	return m.Run()
}

// findDaemon returns the daemon under test, building it in dir if need be.
func findDaemon(dir string) (program, error) {
	if given := os.Getenv("NIXDAEMON_BINARY"); given != "" {
		path, err := filepath.Abs(given)
		if err != nil {
			return program{}, err
		}
		env, err := readEnv(filepath.Join(filepath.Dir(path), "..", "env"))
		if err != nil {
			return program{}, err
		}
		_, err = os.Stat(path)
		return program{path: path, env: env}, err
	}
	if err := dependOnSources(".."); err != nil {
		return program{}, err
	}
	path := filepath.Join(dir, "nix-daemon")
	cmd := exec.Command("go", "build", "-o", path, "./daemon/cmd/nix-daemon")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return program{}, fmt.Errorf("build the daemon: %w\n%s", err, out)
	}
	return program{path: path}, nil
}

// dependOnSources looks at the module's sources. The go command notes which
// files a test looks at, so that an earlier result does not pass for that of a
// daemon that was changed since.
func dependOnSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return fs.SkipDir
		}
		if !d.IsDir() {
			_, err = os.Stat(path)
		}
		return ignoreMissing(err)
	})
}

// requireClients returns the clients of the wanted versions, all if none is
// named, having skipped the test (or failed it, where clients are required)
// if one is not there.
func requireClients(t *testing.T, versions ...string) []client {
	t.Helper()
	if testing.Short() {
		t.Skip("needs upstream's clients and a daemon, which -short leaves out")
	}
	if shared.missing != nil {
		if os.Getenv("NIXDAEMON_REQUIRE_CLIENTS") == "1" {
			t.Fatalf("clients are missing: %v", shared.missing)
		}
		t.Skipf("clients are missing: %v", shared.missing)
	}
	if shared.noDaemon != nil {
		t.Fatalf("no daemon to test: %v", shared.noDaemon)
	}
	if len(versions) == 0 {
		versions = clientVersions
	}
	var clients []client
	for _, v := range versions {
		clients = append(clients, shared.clients[v])
	}
	return clients
}

// program is an executable with what it needs in its environment.
type program struct {
	path string
	env  []string
}

// readEnv reads lines of the form "export NAME=VALUE"; no file is no lines.
func readEnv(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	var env []string
	for line := range strings.Lines(string(data)) {
		if kv, ok := strings.CutPrefix(strings.TrimSpace(line), "export "); ok {
			env = append(env, kv)
		}
	}
	return env, err
}
