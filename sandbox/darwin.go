package sandbox

import (
	"nixdaemon/sandbox/darwinexec"
	"nixdaemon/sandbox/darwinprofile"
)

// DarwinSandbox is what a builder on macOS is started with: instead of a world of its own ([Isolation]) it has a profile
// that says which parts of the host's world exist for it. Elsewhere [Launcher.Start] refuses it with
// [errors.ErrUnsupported].
//
// The builder is reached in steps: the fork becomes the builder's user and executes sandbox-exec, which enters the
// profile and executes the daemon's own program, which executes the builder (package darwinexec). A step that fails
// says so in the builder's output and ends with a status other than 0.
type DarwinSandbox struct {
	// Profile is what the builder may do. [darwinprofile.Options.Helper] is set by the launcher. Nil means no profile at
	// all, for a daemon that is itself under one: profiles do not nest.
	//
	// The text is in a file beside [Spec.Dir], with ".sb" after its name, from start to end of the build. So the
	// directory above must be the daemon's alone to write, and the builder's to search.
	Profile *darwinprofile.Options
	// Architecture is which one of a universal program is executed. Rosetta runs what is not this machine's.
	Architecture darwinexec.Architecture
}

// profileFile is where the text of the profile is while the builder runs.
func (s *Spec) profileFile() string { return s.Dir + ".sb" }

// throughSteps is the process that ends up as the builder, with the text of the profile, or "" for none. self is the
// absolute file name of the daemon's program.
func (s *Spec) throughSteps(self string) (_ *Spec, text string, err error) {
	job := darwinexec.Job{Path: s.Path, Args: s.Args, Env: s.Env, Architecture: s.Darwin.Architecture}
	first := *s
	first.Args, first.Env = job.Command(self)
	first.Path = self
	if s.Darwin.Profile == nil {
		return &first, "", nil
	}
	options := *s.Darwin.Profile
	options.Helper = self
	if text, err = darwinprofile.Profile(&options); err != nil {
		return nil, "", err
	}
	first.Path = darwinprofile.SandboxExec
	first.Args = darwinprofile.Arguments(&options, s.profileFile(), first.Args)
	return &first, text, nil
}
