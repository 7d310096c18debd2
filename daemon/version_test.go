package daemon

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionLine(t *testing.T) {
	line := versionLine("nix-daemon (Nix) 2.34.8\nSystem type: x\n")
	if !strings.HasPrefix(line, "nix-daemon (Nix) 2.34.8 (nixdaemon "+Version) || !strings.HasSuffix(line, ")\nSystem type: x\n") {
		t.Errorf("%q", line)
	}
	if got := withSuffix("nix-daemon", " x"); got != "nix-daemon x" {
		t.Errorf("without a line's end: %q", got)
	}
}

func TestRecordedCommit(t *testing.T) {
	setting := func(key, value string) debug.BuildSetting { return debug.BuildSetting{Key: key, Value: value} }
	for _, tt := range []struct {
		settings []debug.BuildSetting
		want     string
	}{
		{nil, ""},
		{[]debug.BuildSetting{setting("vcs.modified", "true")}, ""},
		{[]debug.BuildSetting{setting("vcs.revision", "0123456789abcdef"), setting("vcs.modified", "false")}, "0123456789ab"},
		{[]debug.BuildSetting{setting("vcs.modified", "true"), setting("vcs.revision", "0123")}, "0123-dirty"},
	} {
		if got := recorded(tt.settings); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.settings, got, tt.want)
		}
	}
}
