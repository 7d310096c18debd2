package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/worker/settings"
)

// TestSettingFlags shows each form of flag by the setting that it changes.
func TestSettingFlags(t *testing.T) {
	for _, c := range []struct{ args, name, want string }{
		{"--option timeout 5", "timeout", "5"}, {"--option extra-system-features zz", "system-features", "benchmark big-parallel nixos-test uid-range zz"},
		{"--keep-build-log", "keep-build-log", "true"}, {"--no-keep-build-log", "keep-build-log", "false"},
		{"--sandbox", "sandbox", "true"}, {"--no-sandbox", "sandbox", "false"}, {"--relaxed-sandbox", "sandbox", "relaxed"},
		{"--build-use-sandbox", "sandbox", "relaxed"}, {"--build-fallback", "fallback", "false"},
		{"--substituters http://a", "substituters", "http://a"}, {"--extra-substituters http://a", "substituters", "https://cache.nixos.org/ http://a"},
		{"--binary-caches http://a", "substituters", "https://cache.nixos.org/ http://a"},
		{"--cores 2K", "cores", "2048"}, {"--build-cores 3", "cores", "3"}, {"--max-silent-time 1k", "max-silent-time", "1024"},
		{"--timeout 4", "timeout", "4"}, {"-j 3", "max-jobs", "3"}, {"-j7", "max-jobs", "7"}, {"--max-jobs auto", "max-jobs", "4"},
		{"-K", "keep-failed", "true"}, {"-kK", "keep-going", "true"}, {"--keep-failed", "keep-failed", "true"},
		{"--keep-going", "keep-going", "true"}, {"--fallback", "fallback", "true"}, {"--store /x", "store", "local:///x"},
		{"--extra-experimental-features auto-allocate-uids --auto-allocate-uids", "auto-allocate-uids", "true"},
		{"--auto-allocate-uids --extra-experimental-features auto-allocate-uids", "auto-allocate-uids", "true"},
		{"--max-total-jobs 3", "max-total-jobs", "3"}, {"--trusted-users a --extra-trusted-users @b", "trusted-users", "a @b"},
		{"--daemon --keep-failed --no-gc-warning -Q --no-build-output", "keep-failed", "true"},
	} {
		got, ok := machine{args: strings.Fields(c.args)}.load(t).Settings.Get(c.name)
		if !ok || got != c.want {
			t.Errorf("%s: %s = %q, want %q", c.args, c.name, got, c.want)
		}
	}
}

func TestVerbosityFlags(t *testing.T) {
	for args, want := range map[string]settings.Verbosity{
		"": settings.LevelInfo, "-v": settings.LevelTalkative, "-vv --verbose": settings.LevelDebug,
		"--debug": settings.LevelDebug, "-vvvvvvvvv": settings.LevelVomit, "--quiet": settings.LevelNotice,
		"--quiet --quiet --quiet --quiet --quiet": settings.LevelError,
	} {
		if got := (machine{args: strings.Fields(args)}).load(t).Settings.Verbosity; got != want {
			t.Errorf("%q: %d, want %d", args, got, want)
		}
	}
}

func TestDaemonFlags(t *testing.T) {
	trustFeature := "--extra-experimental-features daemon-trust-override "
	for args, want := range map[string]Config{
		"--daemon": {}, "--stdio": {Mode: ModeStdio}, "-- --stdio": {Mode: ModeStdio}, "--version": {Mode: ModeVersion},
		"--help --nonsense":                                                     {Mode: ModeHelp},
		trustFeature + "--force-trusted":                                        {Trust: TrustAll},
		trustFeature + "--force-untrusted":                                      {Trust: TrustNone},
		trustFeature + "--force-trusted --default-trust":                        {},
		"--extra-experimental-features mounted-ssh-store --process-ops --stdio": {Mode: ModeStdio, ProcessOps: true},
	} {
		c := machine{args: strings.Fields(args)}.load(t)
		if c.Mode != want.Mode || c.Trust != want.Trust || c.ProcessOps != want.ProcessOps {
			t.Errorf("%s: mode %d, trust %d, process ops %v", args, c.Mode, c.Trust, c.ProcessOps)
		}
	}
	c := machine{args: []string{"--readonly-mode", "--log-format", "internal-json"}}.load(t)
	if !c.Settings.ReadOnlyMode || c.LogFormat != "internal-json" {
		t.Errorf("%+v", c)
	}
}

// badFlags are refused; upstream_test.go compares the texts.
var badFlags = map[string]string{
	"foo": "unexpected argument 'foo'", "--foo": "unrecognised flag '--foo'", "-x": "unrecognised flag '-x'",
	"-": "unrecognised flag '-'", "--keep-going=true": "unrecognised flag '--keep-going=true'",
	"--extra-cores 3": "unrecognised flag '--extra-cores'", "-kx": "unrecognised flag '-x'", "--j 3": "unrecognised flag '--j'",
	"-- --cores": "unexpected argument '--cores'", "--cores 4q": "invalid unit specifier 'Q'",
	"--cores 1.5": "'1.5' is not an integer", "--timeout -1": "'-1' is not an integer",
	"--max-jobs x":   "configuration setting 'max-jobs' should be 'auto' or an integer",
	"-jx":            "configuration setting 'max-jobs' should be 'auto' or an integer",
	"--log-lines x":  "setting 'log-lines' has invalid value 'x'",
	"--log-format x": "option 'log-format' has an invalid value 'x'", "--store nope": "Cannot parse Nix store 'nope'",
	"--substituters nope": "Cannot parse Nix store 'nope'", "--netrc-file x": `not an absolute path: "x"`,
	"--force-trusted":   "experimental Nix feature 'daemon-trust-override' is disabled; add '--extra-experimental-features daemon-trust-override' to enable it",
	"--force-untrusted": "experimental Nix feature 'daemon-trust-override' is disabled; add '--extra-experimental-features daemon-trust-override' to enable it",
	"--default-trust":   "experimental Nix feature 'daemon-trust-override' is disabled; add '--extra-experimental-features daemon-trust-override' to enable it",
	"--process-ops":     "experimental Nix feature 'mounted-ssh-store' is disabled; add '--extra-experimental-features mounted-ssh-store' to enable it",
}

func TestFlagErrors(t *testing.T) {
	for args, want := range badFlags {
		if _, err := Load(machine{args: strings.Fields(args)}.input()); err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", args, err, want)
		}
	}
	for args, want := range map[string]string{
		"--option a":           "flag '--option' requires 2 argument(s), but only 1 were given",
		"--cores":              "flag '--cores' requires 1 argument(s), but only 0 were given",
		"-j":                   "flag '-j' requires 1 argument(s), but only 0 were given",
		"--auto-allocate-uids": "experimental Nix feature 'auto-allocate-uids' is disabled; add '--extra-experimental-features auto-allocate-uids' to enable it",
	} {
		if _, err := Load(machine{args: strings.Fields(args)}.input()); err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", args, err, want)
		}
	}
}

func TestUsageHint(t *testing.T) {
	c, err := Load(machine{args: []string{"--foo"}}.input())
	var usage *settings.UsageError
	if !errors.As(err, &usage) || c.UsageHint() != "Try 'nix-daemon --help' for more information." {
		t.Errorf("%v, %s", err, c.UsageHint())
	}
	_, err = Load(machine{args: []string{"--log-format", "x"}}.input())
	if err == nil || errors.As(err, &usage) {
		t.Errorf("a wrong log format is no usage error upstream: %v", err)
	}
}

func TestOptionWarnings(t *testing.T) {
	c := machine{args: strings.Fields("--option keep-going x --option zz 1 --option aa 2 --cores 3")}.load(t)
	want := []string{"Boolean setting 'keep-going' has invalid value 'x'", "unknown setting 'aa'", "unknown setting 'zz'"}
	if diff := cmp.Diff(want, c.Warnings); diff != "" || c.Settings.Cores != 3 {
		t.Error(diff)
	}
}

func TestVersionText(t *testing.T) {
	c := machine{args: []string{"--version"}}.load(t)
	if got := c.VersionText("2.34.8"); got != "nix-daemon (Nix) 2.34.8\n" {
		t.Error(got)
	}
	c = machine{args: []string{"-v", "--option", "zz", "1", "--store", "nope://x", "--version"}, env: map[string]string{"NIX_STORE_DIR": "/s"}}.load(t)
	want := `nix-daemon (Nix) 1.2.3
System type: x86_64-linux
Additional system types: i686-linux
Features: gc, signed-caches
System configuration file: "/etc/nix/nix.conf"
User configuration files: /home/u/.config/nix/nix.conf:/etc/xdg/nix/nix.conf
Store directory: /s
State directory: "/nix/var/nix"
`
	if diff := cmp.Diff(want, c.VersionText("1.2.3")); diff != "" || len(c.Warnings) != 0 {
		t.Errorf("%s\nwarnings %q", diff, c.Warnings)
	}
}
