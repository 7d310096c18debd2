package compat

import (
	"errors"
	"fmt"
	"go/version"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clientVersions are those that the scripts run with: the oldest that Debian
// still carries, one from before structured derived paths and one from after
// the protocol's features, and the one whose daemon is the reference.
var clientVersions = []string{"2.3.7", "2.8.0", "2.26.3", referenceVersion}

// referenceVersion is the release whose daemon says what is right.
const referenceVersion = "2.34.8"

// client is one installed release of upstream Nix.
type client struct {
	version string
	bin     string // folder of its programs
	env     []string
}

// program returns one of the client's programs.
func (c client) program(name string) program {
	return program{path: filepath.Join(c.bin, name), env: c.env}
}

// matches tells whether the client's version satisfies a condition like
// "client>=2.8" or "client<2.26".
func (c client) matches(cond string) (bool, error) {
	rest, ok := strings.CutPrefix(cond, "client")
	if !ok {
		return false, fmt.Errorf("unknown condition")
	}
	for _, op := range []string{">=", "<"} {
		if want, ok := strings.CutPrefix(rest, op); ok {
			older := compareVersions(c.version, want) < 0
			return older == (op == "<"), nil
		}
	}
	return false, fmt.Errorf("want client>=VERSION or client<VERSION")
}

// compareVersions compares dotted numbers; Nix's have the form of Go's.
func compareVersions(a, b string) int {
	return version.Compare("go"+a, "go"+b)
}

// clientsDir is where the clients are, or are to be.
func clientsDir() (string, error) {
	if dir := os.Getenv("NIXDAEMON_CLIENTS"); dir != "" {
		return filepath.Abs(dir)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "nixdaemon-compat"), nil
}

// findClients returns the clients on this machine, after having had
// get-clients fetch those that were missing. The error tells what still is.
func findClients() (map[string]client, error) {
	dir, err := clientsDir()
	if err != nil {
		return nil, err
	}
	found, missing := lookForClients(dir)
	if len(missing) == 0 {
		return found, nil
	}
	out, err := exec.Command("./get-clients", missing...).CombinedOutput()
	if found, missing = lookForClients(dir); len(missing) == 0 {
		return found, nil
	}
	return found, fmt.Errorf("nix %s in %s: %w", strings.Join(missing, ", "), dir,
		errors.Join(err, errors.New(strings.TrimSpace(string(out)))))
}

func lookForClients(dir string) (found map[string]client, missing []string) {
	found = make(map[string]client)
	for _, v := range clientVersions {
		c := client{version: v, bin: filepath.Join(dir, v, "bin")}
		var err error
		c.env, err = readEnv(filepath.Join(dir, v, "env"))
		if _, statErr := os.Stat(filepath.Join(c.bin, "nix-store")); err != nil || statErr != nil {
			missing = append(missing, v)
			continue
		}
		found[v] = c
	}
	return found, missing
}

func TestClientConditions(t *testing.T) {
	tests := []struct {
		version, cond string
		want          bool
	}{
		{"2.3.7", "client<2.4", true},
		{"2.3.7", "client>=2.4", false},
		{"2.26.3", "client<2.8", false},
		{"2.26.3", "client>=2.26", true},
		{"2.34.8", "client<2.34.8", false},
	}
	for _, tt := range tests {
		if got, err := (client{version: tt.version}).matches(tt.cond); err != nil || got != tt.want {
			t.Errorf("%s: [%s] = %v, %v; want %v", tt.version, tt.cond, got, err, tt.want)
		}
	}
	if _, err := (client{version: "2.3.7"}).matches("cleint<3"); err == nil {
		t.Error("a misspelt condition is not refused")
	}
}
