package build

import (
	"os"
	"path/filepath"

	"nixdaemon/sandbox"
	"nixdaemon/sandbox/cgroup"
	"nixdaemon/worker/settings"
)

// cgroupLimits are what the administrator allows each build.
func (a *attempt) cgroupLimits() cgroup.Limits {
	return cgroup.Limits{Memory: a.set.MaxBuildMemory, Processes: a.set.MaxBuildProcesses}
}

// asksCgroup tells whether upstream would use a cgroup (linux-derivation-builder.cc, prepareUser).
func (a *attempt) asksCgroup() bool {
	return a.isolated && a.set.UseCgroups || a.idCount() > 1
}

// mustCgroup tells whether the build cannot be without a cgroup.
func (a *attempt) mustCgroup() bool { return a.asksCgroup() || a.cgroupLimits() != cgroup.Limits{} }

// wantsCgroup tells whether to use a cgroup where there are any. Without a user and isolation it is what makes sure
// that nothing of the builder survives.
func (a *attempt) wantsCgroup() bool {
	if a.mustCgroup() {
		return true
	}
	if a.o.Cgroups == nil || a.noCgroups.Load() || a.isolated {
		return false
	}
	return a.user == nil || a.set.UseCgroups && a.set.ExperimentalFeatures.Enabled(settings.Cgroups)
}

// clearCgroup destroys what a daemon that has died has left of the user's last build.
func (a *attempt) clearCgroup() error {
	if !a.wantsCgroup() {
		return nil
	}
	if a.asksCgroup() {
		if err := a.set.ExperimentalFeatures.Require(settings.Cgroups); err != nil {
			return err
		}
	}
	if a.o.Cgroups == nil {
		return cgroup.ErrNone
	}
	if a.user == nil {
		return nil
	}
	next := filepath.Join(a.o.Cgroups.Dir(), cgroup.UserName(a.user.UID))
	return cgroup.Records(filepath.Join(a.store.StateDir(), "cgroups")).Begin(a.user.UID, next)
}

// makeCgroup makes the build's cgroup. Where it is not a must, a daemon that may not is told once, and builds go on
// without.
func (a *attempt) makeCgroup() (err error) {
	if !a.wantsCgroup() {
		return nil
	}
	o := cgroup.Options{Limits: a.cgroupLimits()}
	if a.user == nil {
		a.cgroup, err = a.o.Cgroups.CreateNext(o)
	} else {
		if a.isolated {
			o.Owner = &cgroup.Owner{UID: a.user.UID, GID: a.user.GID}
		}
		a.cgroup, err = a.o.Cgroups.Create(cgroup.UserName(a.user.UID), o)
	}
	if err != nil && !a.mustCgroup() {
		if !a.noCgroups.Swap(true) {
			a.o.Log.Info().Err(err).Msg("builds run without cgroups")
		}
		return nil
	}
	return err
}

func (a *attempt) cgroupDir() *os.File {
	if a.cgroup == nil {
		return nil
	}
	return a.cgroup.Dir()
}

func (a *attempt) cgroupPath() string {
	if a.cgroup == nil {
		return ""
	}
	return a.cgroup.Path()
}

// endCgroup kills whatever is left in the cgroup, and has res tell what all of it has used.
func (a *attempt) endCgroup(res *sandbox.Result) error {
	if a.cgroup == nil {
		return nil
	}
	stats, err := a.cgroup.Destroy()
	a.cgroup = nil
	if err != nil {
		a.stuck = true
		return err
	}
	res.CPUUser, res.CPUSystem = stats.CPUUser, stats.CPUSystem
	return nil
}
