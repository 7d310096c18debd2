// Package fixturetest finds upstream's golden files for tests. They are not
// part of this project: tests that want them skip when they are absent.
package fixturetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"nixdaemon/protocol/internal/njson"
)

// EnvVar names the directory of the golden files.
const EnvVar = "NIXDAEMON_FIXTURES"

// Dir gives the directory of the golden files: that which EnvVar names, or
// shared/fixtures/upstream beside a parent of the working directory. It skips
// the test when there is none.
func Dir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv(EnvVar); dir != "" {
		return dir
	}
	at, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; at != filepath.Dir(at); at = filepath.Dir(at) {
		dir := filepath.Join(at, "shared", "fixtures", "upstream")
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
	}
	t.Skipf("no golden files of upstream: set %s", EnvVar)
	return ""
}

// Read gives one file's content.
func Read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(Dir(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// JSON decodes one file.
func JSON[T any](t testing.TB, name string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(Read(t, name)), &v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// Canonical is JSON without the golden files' indentation.
func Canonical(t testing.TB, text string) string {
	t.Helper()
	v, err := njson.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return v.String()
}
