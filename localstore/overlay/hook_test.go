package overlay

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestHook(t *testing.T) {
	dir := t.TempDir()
	program, out := filepath.Join(dir, "hook"), filepath.Join(dir, "out")
	for script, want := range map[string]string{
		"echo $# $1 > " + out: "",
		"exit 3":              `program "` + program + `" failed with exit code 3`,
		"kill -9 $$":          `program "` + program + `" failed due to signal 9 (Killed)`,
	} {
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		err := Hook(program)(context.Background(), "/s")
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v", script, err)
		}
	}
	if text, err := os.ReadFile(out); string(text) != "1 /s\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	none := filepath.Join(dir, "none")
	if err := Hook(none)(context.Background(), "/s"); err == nil || err.Error() != `program "`+none+`" failed with exit code 1` {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("enough"))
	if err := Hook(program)(ctx, "/s"); err == nil || err.Error() != "enough" {
		t.Error(err)
	}
}
