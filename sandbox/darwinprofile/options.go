package darwinprofile

import (
	"fmt"
	"path"
	"strings"
)

// Options are what a profile is made from. All paths are absolute and clean, and real: macOS checks the name that a
// path has once links are resolved.
type Options struct {
	// Isolated denies by default. Without it only Helper, BuildDir and TempDir are looked at, and those for parameters.
	Isolated bool
	// LogViolations lets macOS log what was denied to the system's log (upstream's darwin-log-sandbox-violations).
	LogViolations bool
	// Network allows all of the network, name resolution and the system's trust decisions, for builds whose result does
	// not depend on it.
	Network bool
	// LocalNetwork allows connections to this machine and listening, and name resolution
	// (upstream's __darwinAllowLocalNetworking).
	LocalNetwork bool

	// BuildDir is the builder's directory, TempDir the one that the system's programs use for temporary files. Both are
	// writable, and may hold sockets.
	BuildDir, TempDir string
	// StoreDir is where outputs and inputs lie. It can be listed, as can the directories above it.
	StoreDir string
	// Outputs are the paths that the builder makes, with all below them.
	Outputs []string
	// Inputs are what the builder works with, in the store.
	Inputs []Path
	// HostPaths are what it sees besides. The directories above them can be listed.
	HostPaths []Path
	// Helper is the program that carries out the last step before the builder; it can be executed.
	Helper string
	// Additional is text in the profile language that follows all other (upstream's __sandboxProfile).
	Additional string
}

// Path is something that exists on the host.
type Path struct {
	Name string
	// Tree means all below Name too. Without it Name is visible alone, as for a file.
	Tree bool
}

// Parameter is a value that a profile refers to by name.
type Parameter struct{ Name, Value string }

// The parameters' names are upstream's: texts in derivations refer to them.
const (
	paramBuildDir     = "_NIX_BUILD_TOP"
	paramTempDir      = "_GLOBAL_TMP_DIR"
	paramLocalNetwork = "_ALLOW_LOCAL_NETWORKING"
)

// Parameters are the values that belong to the profile of o. Name and value of each are one argument of sandbox-exec,
// and neither contains a zero byte if [Profile] had no error.
func Parameters(o *Options) []Parameter {
	params := []Parameter{{paramBuildDir, o.BuildDir}, {paramTempDir, o.TempDir}}
	if o.LocalNetwork {
		params = append(params, Parameter{paramLocalNetwork, "1"})
	}
	return params
}

// SandboxExec is the system's program that enters a profile and executes another program.
const SandboxExec = "/usr/bin/sandbox-exec"

// Arguments is the argument vector of [SandboxExec], its own name included, that runs command under the profile in
// file. The first element of command is an absolute file name: sandbox-exec passes it on as argv[0] too.
func Arguments(o *Options, file string, command []string) []string {
	args := []string{path.Base(SandboxExec), "-f", file}
	for _, p := range Parameters(o) {
		args = append(args, "-D", p.Name+"="+p.Value)
	}
	return append(args, command...)
}

// validate refuses what would not mean in the profile what it means here.
func (o *Options) validate() error {
	check := []string{o.BuildDir, o.TempDir, o.Helper}
	if o.Isolated {
		check = append(check, o.StoreDir)
		check = append(check, o.Outputs...)
		for _, paths := range [][]Path{o.Inputs, o.HostPaths} {
			for _, p := range paths {
				check = append(check, p.Name)
			}
		}
	}
	for _, name := range check {
		if err := validatePath(name); err != nil {
			return err
		}
	}
	// The one string that goes into the text as it is ends where C says it ends.
	if strings.IndexByte(o.Additional, 0) >= 0 {
		return fmt.Errorf("write sandbox profile: additional text contains a null byte")
	}
	return nil
}

func validatePath(name string) error {
	if !path.IsAbs(name) || path.Clean(name) != name {
		return fmt.Errorf("write sandbox profile: path %q is not absolute and clean", name)
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7f {
			return fmt.Errorf("write sandbox profile: path %q contains control characters", name)
		}
	}
	return nil
}
