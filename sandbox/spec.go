package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Spec describes one builder process completely.
type Spec struct {
	// Path is the absolute file name of the program.
	Path string
	// Args is the whole argument vector, the program's own name (argv[0]) included.
	Args []string
	// Env is the complete environment, as KEY=VALUE. Nothing is inherited or added.
	Env []string
	// Dir is the absolute working directory.
	// Without User it must be this build's alone: escaped processes are recognised by it.
	Dir string
	// User is who the builder runs as. Nil means the daemon's own user.
	User *User
	// AllowNewPrivileges leaves set-id programs effective (upstream's allow-new-privileges). Linux only.
	AllowNewPrivileges bool
	// FilterSyscalls installs the filter of package seccomp (upstream's filter-syscalls). Linux only.
	FilterSyscalls bool
	// Keyrings leaves the kernel's keyrings within reach, which the builder would share with the daemon. Linux only.
	Keyrings bool
	// Personality selects what the kernel pretends to be. Linux only.
	Personality Personality
	// Isolation is the builder's world. Nil means the daemon's own.
	Isolation *Isolation
	// Cgroup is an open directory of the cgroup (version 2) that the builder starts in. Nil means the daemon's own.
	// Linux only.
	Cgroup *os.File
	// Darwin is the builder's profile and architecture. Nil means none. macOS only.
	Darwin *DarwinSandbox
}

// User is the identity of a builder: real, effective and saved ids alike.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups; all others are dropped.
	Groups []uint32
}

// Personality is the part of the Linux execution domain that a build chooses.
// Address-space randomisation is always off.
type Personality struct {
	// Linux32 makes uname report a 32-bit machine (PER_LINUX32), for i686-linux on x86-64 and 32-bit ARM on arm64.
	Linux32 bool
	// UNAME26 makes uname report a 2.6 kernel (upstream's impersonate-linux-26).
	UNAME26 bool
}

// ErrRootBuilder is returned by [Launcher.Start] for a Spec whose User is uid 0:
// a build user is what separates the builder from root, and killing "all processes of root" must never happen.
var ErrRootBuilder = errors.New("build user has uid 0")

func (s *Spec) validate() error {
	if !filepath.IsAbs(s.Path) {
		return fmt.Errorf("start builder '%s': path is not absolute", s.Path)
	}
	if !filepath.IsAbs(s.Dir) {
		return fmt.Errorf("start builder '%s': directory '%s' is not absolute", s.Path, s.Dir)
	}
	if len(s.Args) == 0 {
		return fmt.Errorf("start builder '%s': empty argument vector", s.Path)
	}
	if s.User != nil && s.User.UID == 0 {
		return fmt.Errorf("start builder '%s': %w", s.Path, ErrRootBuilder)
	}
	if what := s.unsupported(); what != "" {
		return fmt.Errorf("start builder '%s': %s: %w", s.Path, what, errors.ErrUnsupported)
	}
	return nil
}

// dirMarks returns the environment entries whose value is the build directory (TMPDIR and its like).
func (s *Spec) dirMarks() []string {
	var marks []string
	for _, entry := range s.Env {
		if _, value, ok := strings.Cut(entry, "="); ok && value == s.Dir {
			marks = append(marks, entry)
		}
	}
	return marks
}
