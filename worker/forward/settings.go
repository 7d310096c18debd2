package forward

import (
	"slices"

	"nixdaemon/protocol"
	"nixdaemon/worker/settings"
)

// kept are settings that have fields of their own in the request, or that are
// nobody's but ours (libstore/remote-store.cc, setOptions; `store` leads to the
// daemon that would be told of it).
var kept = []string{
	"cores", "experimental-features", "fallback", "keep-failed", "keep-going", "max-jobs", "max-silent-time",
	"plugin-files", "show-trace", "store", "substitute", "use-xdg-base-directories",
}

// hidden is the verbosity of builds whose output is not shown; shown is 0.
const hidden = uint64(settings.LevelVomit)

// clientOptions are settings as the request carries them: those that the
// command line, the user's configuration or the client has changed, and what is
// left of substituters that the client asked for without being trusted.
func clientOptions(s, own *settings.Settings) *protocol.ClientOptions {
	o := &protocol.ClientOptions{
		KeepFailed: s.KeepFailed, KeepGoing: s.KeepGoing, Fallback: s.Fallback,
		Verbosity: uint64(s.Verbosity), MaxJobs: uint64(s.MaxJobs), MaxSilentTime: uint64(s.MaxSilentTime),
		Cores: uint64(s.Cores), Substitute: s.Substitute,
	}
	if !s.VerboseBuild {
		o.BuildVerbosity = hidden
	}
	for info := range s.Infos() {
		if !forwarded(s, own, info) {
			continue
		}
		value, _ := s.Get(info.Name)
		o.Overrides = append(o.Overrides, protocol.Override{Name: info.Name, Value: value})
	}
	return o
}

func forwarded(s, own *settings.Settings, info settings.Info) bool {
	switch {
	case info.Group != settings.GroupStore && info.Group != settings.GroupFileTransfer:
		return false
	case !s.ExperimentalFeatures.Enabled(info.Feature) || slices.Contains(kept, info.Name):
		return false
	case info.Name == "substituters" && !slices.Equal(s.Substituters, own.Substituters):
		return true
	}
	return s.Overridden(info.Name)
}
