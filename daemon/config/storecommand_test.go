package config

import (
	"errors"
	"strings"
	"testing"

	"nixdaemon/worker/settings"
)

func loadAs(program, args string) (*Config, error) {
	in := machine{}.input()
	in.Args = append([]string{program}, strings.Fields(args)...)
	return Load(in)
}

func TestStoreCommand(t *testing.T) {
	for program, want := range map[string]string{
		"nix-store": "nix-store", "/usr/bin/nix-store": "nix-store", "nix-store.real": "nix-store",
		"nix-daemon": "nix-daemon", "nix-storeman": "nix-daemon", "": "nix-daemon",
	} {
		if got := calledAs(program); got != want {
			t.Errorf("%s is %s, want %s", program, got, want)
		}
	}
	for args, write := range map[string]bool{
		"--serve": false, "--serve --write": true, "--write --serve --cores 2 --store /x": true, "-v --serve --stdin": false,
	} {
		c, err := loadAs("/bin/nix-store", args)
		if err != nil || c.Mode != ModeServe || c.Write != write {
			t.Errorf("%s: %+v, %v", args, c, err)
		}
	}
	c, err := loadAs("nix-store", "--version")
	if err != nil || c.Mode != ModeVersion || c.VersionText("1.2") != "nix-store (Nix) 1.2\n" {
		t.Errorf("version: %q, %v", c.VersionText("1.2"), err)
	}
}

func TestStoreCommandRefusals(t *testing.T) {
	for args, want := range map[string]string{
		"": "no operation specified", "--write": "no operation specified",
		"--serve foo": "no arguments expected", "--serve --foo": "unknown flag '--foo'", "--serve --gc": "unknown flag '--gc'",
		"-r /x": "this nix-store only serves other machines ('nix-store --serve'); for '-r' use that of Nix itself",
	} {
		_, err := loadAs("nix-store", args)
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", args, err, want)
		}
		var usage *settings.UsageError
		if isUsage := errors.As(err, &usage); isUsage == strings.HasPrefix(want, "this nix-store") {
			t.Errorf("%q: told how to use it: %v", args, isUsage)
		}
	}
	// The daemon knows nothing of these.
	if _, err := loadAs("nix-daemon", "--serve"); err == nil {
		t.Error("nix-daemon --serve was accepted")
	}
}
