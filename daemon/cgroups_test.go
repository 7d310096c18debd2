package daemon

import (
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/sandbox/cgroup"
	"nixdaemon/worker/settings"
)

func TestFindCgroups(t *testing.T) {
	cfg := &config.Config{Settings: settings.Defaults(settings.Environment{System: "x86_64-linux"})}
	var log strings.Builder
	_, whyNone := cgroup.Find()
	found, err := findCgroups(cfg, 0, zerolog.New(&log))
	if err != nil || (found == nil) != (whyNone != nil) {
		t.Fatalf("got %v, %v; the machine: %v", found, err, whyNone)
	}
	if strings.Count(log.String(), "cgroups") == 0 {
		t.Error("the log does not tell of cgroups")
	}
	// A daemon that only may use them does not need the experimental feature; one that is to use them does.
	cfg.Settings.UseCgroups = true
	_, err = findCgroups(cfg, 0, zerolog.Nop())
	if want := "experimental Nix feature 'cgroups' is disabled; add '--extra-experimental-features cgroups' to enable it"; err == nil || err.Error() != want {
		t.Errorf("use-cgroups without the feature: got %v, want %s", err, want)
	}
	cfg.Mode = config.ModeStdio
	if _, err := findCgroups(cfg, 0, zerolog.Nop()); err != nil {
		t.Errorf("--stdio: %v", err)
	}
}

func TestReleaseInvoked(t *testing.T) {
	for _, args := range [][]string{{"nix-daemon"}, {"nix-daemon", "--daemon"}, {"nix-daemon", "--daemon", releaseFlag}} {
		if ReleaseInvoked(args) {
			t.Errorf("%q", args)
		}
	}
	if !ReleaseInvoked([]string{"nix-daemon", releaseFlag}) {
		t.Error("what the unit says does nothing")
	}
}

// TestReleaseSaysWhatIsWrong: systemd's journal is where it is seen that limits could not be given back.
func TestReleaseSaysWhatIsWrong(t *testing.T) {
	lost := errors.New("it is elsewhere")
	for _, c := range []struct{ found, want error }{{nil, nil}, {cgroup.ErrNone, nil}, {lost, lost}} {
		if err := releaseFrom(func(string) (*cgroup.Hierarchy, error) { return nil, c.found }); !errors.Is(err, c.want) {
			t.Errorf("found %v: %v", c.found, err)
		}
	}
}
