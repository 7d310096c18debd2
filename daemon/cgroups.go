package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/sandbox/cgroup"
	"nixdaemon/worker/settings"
)

// daemonCgroup is the leaf that the daemon moves into, as upstream's does
// (nix/unix/daemon.cc, daemonLoop).
const daemonCgroup = "nix-daemon"

// findCgroups finds where builds get cgroups of their own, nil if nowhere, and
// says once what the machine has not got. With use-cgroups, or limits, the
// daemon needs one, and moves into a leaf of it.
//
// supervisor is the process that keeps us running, 0 without one. It moves along:
// then no process is left in the cgroup that builds get theirs from. An earlier
// server may have moved it already, and so us.
func findCgroups(cfg *config.Config, supervisor int, log zerolog.Logger) (*cgroup.Hierarchy, error) {
	s := cfg.Settings
	limited := s.MaxBuildMemory > 0 || s.MaxBuildProcesses > 0
	if s.UseCgroups && cfg.Mode != config.ModeStdio {
		if err := s.ExperimentalFeatures.Require(settings.Cgroups); err != nil {
			return nil, err
		}
	}
	cgroups, err := cgroup.Find()
	if err == nil && supervisor != 0 && filepath.Base(cgroups.Dir()) == daemonCgroup {
		cgroups, err = cgroup.At(filepath.Dir(cgroups.Dir()))
	}
	if err != nil {
		if s.UseCgroups && cfg.Mode != config.ModeStdio || limited {
			return nil, err
		}
		log.Info().Err(err).Msg("builds run without cgroups")
		return nil, nil
	}
	have, err := cgroups.Controllers()
	if err != nil {
		return nil, err
	}
	var absent []string
	for _, c := range []string{"memory", "pids"} {
		if !slices.Contains(have, c) {
			absent = append(absent, c)
		}
	}
	log.Info().Str("dir", cgroups.Dir()).Strs("controllers", have).Strs("absent", absent).Msg("cgroups for builds")
	if err := cgroups.Sweep(); err != nil {
		log.Warn().Err(err).Msg("destroy cgroups that were left behind")
	}
	if s.MaxBuildMemory > 0 {
		if changed, err := cgroup.Killable(); err != nil {
			return nil, err
		} else if changed {
			log.Info().Msg("builders would be exempt from being killed for want of memory, as the service is: max-build-memory ends that")
		}
	}
	if (s.UseCgroups || limited) && cfg.Mode != config.ModeStdio {
		movers := []int{os.Getpid()}
		if supervisor != 0 {
			movers = append(movers, supervisor)
		}
		if err := cgroups.Enter(daemonCgroup, movers...); err != nil {
			return nil, err
		}
	}
	if limited && cfg.Mode != config.ModeStdio && cgroups.IsService() {
		// If it cannot, builds say so.
		if err := cgroups.Adopt(cgroup.Limits{Memory: s.MaxBuildMemory, Processes: s.MaxBuildProcesses}, daemonCgroup); err != nil {
			log.Warn().Err(err).Msg("limit the builds that go on")
		}
	}
	return cgroups, nil
}

const releaseFlag = "--release-cgroups"

// ReleaseInvoked tells whether the process is what systemd runs after a daemon has ended.
func ReleaseInvoked(args []string) bool { return len(args) == 2 && args[1] == releaseFlag }

// Release has the service's cgroup be one that a daemon can be started in although builds with limits go on, and gives
// the exit status. They get their limits back from the next daemon.
func Release() int {
	if err := releaseCgroups(); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 1
	}
	return 0
}

func releaseCgroups() error { return releaseFrom(cgroup.Service) }

func releaseFrom(service func(leaf string) (*cgroup.Hierarchy, error)) error {
	h, err := service(daemonCgroup)
	switch {
	case errors.Is(err, cgroup.ErrNone):
		return nil // then no builds have any
	case err != nil:
		return fmt.Errorf("find the service's cgroup: %w", err)
	case h == nil:
		return nil // nobody minds what is below
	}
	return h.Release()
}
