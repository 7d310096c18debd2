package build

import (
	"strings"
	"testing"

	"nixdaemon/protocol/derivation"
	"nixdaemon/worker/settings"
)

// TestCannotBuildHere has each reason, and several at once.
func TestCannotBuildHere(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("x", "echo > $out")
	cannot := "Cannot build '" + w.print(drv) + "'."
	noJobs := "\nReason: local builds are disabled (max-jobs = 0)\nHint: set 'max-jobs' to a non-zero value to enable local builds, or configure remote builders via 'builders'"
	features := func(required, available string) string {
		return "\nReason: missing system features\nRequired features: {" + required + "}\nAvailable features: {" + available + "}"
	}
	tests := []struct {
		name     string
		set      func(*settings.Settings)
		platform string
		options  derivation.Options
		want     string
	}{
		{name: "it can", platform: "x86_64-linux"},
		{name: "extra platform", platform: "i686-linux", set: func(s *settings.Settings) { s.ExtraPlatforms = []string{"i686-linux"} }},
		{name: "builtin", platform: "builtin"},
		{name: "external builder", platform: "odd-os", options: derivation.Options{RequiredSystemFeatures: []string{"unheard-of"}},
			set: func(s *settings.Settings) { s.MaxJobs, s.ExternalBuilders = 0, testExternal("/ext") }},
		{name: "no jobs", platform: "x86_64-linux", set: func(s *settings.Settings) { s.MaxJobs = 0 }, want: noJobs},
		{name: "platform", platform: "riscv64-linux", want: "\nReason: platform mismatch\nRequired system: 'riscv64-linux'\nCurrent system: 'x86_64-linux'"},
		{name: "rosetta", platform: "x86_64-darwin", set: func(s *settings.Settings) { s.System = "aarch64-darwin" },
			want: "\nReason: platform mismatch\nRequired system: 'x86_64-darwin'\nCurrent system: 'aarch64-darwin'" +
				"\nNote: run `/usr/sbin/softwareupdate --install-rosetta && launchctl stop org.nixos.nix-daemon` to run programs for x86_64-darwin"},
		{name: "features", platform: "x86_64-linux", options: derivation.Options{RequiredSystemFeatures: []string{"kvm", "big", "kvm"}},
			set: func(s *settings.Settings) { s.SystemFeatures = []string{"nixos-test", "benchmark"} }, want: features("big, kvm", "benchmark, nixos-test")},
		{name: "experimental features", platform: "x86_64-linux", options: derivation.Options{RequiredSystemFeatures: []string{"big"}},
			set: func(s *settings.Settings) {
				s.SystemFeatures = nil
				s.ExperimentalFeatures = settings.Features(settings.CADerivations, settings.RecursiveNix, settings.DynamicDerivations)
			}, want: features("big", "ca-derivations, recursive-nix")},
		{name: "what 2.34 does not name is there", platform: "x86_64-linux", options: derivation.Options{RequiredSystemFeatures: []string{derivation.FeatureBuilderRPC}},
			set: func(s *settings.Settings) { s.ExperimentalFeatures = settings.Features(settings.DynamicDerivations) }},
		{name: "several", platform: "riscv64-linux", options: derivation.Options{RequiredSystemFeatures: []string{"big"}},
			set:  func(s *settings.Settings) { s.MaxJobs, s.SystemFeatures = 0, nil },
			want: noJobs + "\nReason: platform mismatch\nRequired system: 'riscv64-linux'\nCurrent system: 'x86_64-linux'" + features("big", "")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := *w.sess.Settings
			if tt.set != nil {
				tt.set(&s)
			}
			d := new(derivation.Derivation)
			if d.Platform, d.Builder = tt.platform, "/bin/sh"; tt.platform == "builtin" {
				d.Builder = "builtin:fetchurl"
			}
			got := w.sched.rejectLocal(&s, drv, d, &tt.options)
			switch {
			case got == nil && tt.want != "":
				t.Errorf("not rejected, want %s", tt.want)
			case got == nil:
			case tt.want == "" || withoutColours(got.Msg.Coloured()) != cannot+tt.want:
				t.Errorf("got %s\nwant %s", withoutColours(got.Msg.Coloured()), cannot+tt.want)
			case got.Status != derivation.StatusInputRejected || !strings.Contains(got.Msg.Coloured(), ansiRed):
				t.Errorf("status %v, text %q", got.Status, got.Msg.Coloured())
			}
		})
	}
}
