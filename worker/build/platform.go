package build

import (
	"slices"
	"strings"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// rejectLocal tells why a derivation cannot be built on this machine for a client with these settings; nil if it can
// (derivation-building-goal.cc, reject).
func (sched *Scheduler) rejectLocal(s *settings.Settings, drvPath storepath.Path, drv *derivation.Derivation, options *derivation.Options) *Failure {
	if sched.away {
		return errAway()
	}
	if externalBuilder(s, drv.Platform) != nil {
		return nil
	}
	noJobs := s.MaxJobs == 0
	badPlatform := drv.Platform != s.System && !slices.Contains(s.ExtraPlatforms, drv.Platform) && !drv.IsBuiltin()
	required, available := requiredFeatures(drv, options), sched.availableFeatures(s)
	lacks := slices.ContainsFunc(required, func(f string) bool { return !slices.Contains(available, f) })
	if !noJobs && !badPlatform && !lacks {
		return nil
	}
	t := textf("Cannot build '%s'.", sched.store.Dir().Print(drvPath))
	if noJobs {
		t = t.and(textf("\nReason: %s (max-jobs = 0)"+
			"\nHint: set 'max-jobs' to a non-zero value to enable local builds, or configure remote builders via 'builders'",
			red("local builds are disabled")))
	}
	if badPlatform {
		t = t.and(textf("\nReason: %s\nRequired system: '%s'\nCurrent system: '%s'", red("platform mismatch"), drv.Platform, s.System))
	}
	if lacks {
		// The release that we report does not know this one.
		available = slices.DeleteFunc(available, func(f string) bool { return f == derivation.FeatureBuilderRPC })
		t = t.and(textf("\nReason: %s\nRequired features: {%s}\nAvailable features: {%s}", red("missing system features"),
			plain(strings.Join(required, ", ")), plain(strings.Join(available, ", "))))
	}
	if badPlatform && drv.Platform == "x86_64-darwin" && s.System == "aarch64-darwin" {
		t = t.and(textf("\nNote: run `%s` to run programs for x86_64-darwin",
			"/usr/sbin/softwareupdate --install-rosetta && launchctl stop org.nixos.nix-daemon"))
	}
	return &Failure{Status: derivation.StatusInputRejected, Msg: t}
}

// requiredFeatures is a sorted set of the system features that a derivation asks for.
func requiredFeatures(drv *derivation.Derivation, options *derivation.Options) []string {
	required := slices.Clone(options.RequiredSystemFeatures)
	if t, err := drv.Type(); err == nil && !t.HasKnownOutputPaths {
		required = append(required, "ca-derivations")
	}
	slices.Sort(required)
	return slices.Compact(required)
}

// availableFeatures is a sorted set of what this machine has, experimental features that are on included. Upstream's
// store reads the setting when it is opened: what a client sets has no effect.
func (sched *Scheduler) availableFeatures(s *settings.Settings) []string {
	available := slices.Clone(sched.systemFeatures)
	if available == nil {
		available = slices.Clone(s.SystemFeatures)
	}
	for feature, name := range map[settings.Feature]string{
		settings.CADerivations: "ca-derivations",
		settings.RecursiveNix:  featureRecursiveNix,
		// Upstream from 2.36 on.
		settings.DynamicDerivations: derivation.FeatureBuilderRPC,
	} {
		if s.ExperimentalFeatures.Enabled(feature) {
			available = append(available, name)
		}
	}
	slices.Sort(available)
	return slices.Compact(available)
}
