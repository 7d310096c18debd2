package darwinexec

import (
	"fmt"
	"path/filepath"
	"strings"
)

// marker is the argument by which the daemon's binary knows that it is to execute a builder.
const marker = "__execute-builder"

// envPrefix hides the builder's variables from everything on the way: the system would remove some, and others would
// configure the Go runtime of this step.
const envPrefix = "_NIX_BUILDER_ENV_"

// stepEnv is the environment of the step itself. A signal by which the Go runtime interrupts its threads may otherwise
// meet the builder.
const stepEnv = "GODEBUG=asyncpreemptoff=1"

// Architecture is which part of a universal program is executed, and whose translation.
type Architecture string

// The architectures of macOS. Any leaves the choice to the system.
const (
	Any   Architecture = ""
	ARM64 Architecture = "arm64"
	X8664 Architecture = "x86_64"
)

// cpuType is the architecture's number in mach/machine.h.
func (a Architecture) cpuType() (uint32, error) {
	switch a {
	case ARM64:
		return 0x0100000c, nil
	case X8664:
		return 0x01000007, nil
	}
	return 0, fmt.Errorf("unknown architecture '%s'", string(a))
}

// Job is a program to execute.
type Job struct {
	// Path is the absolute file name, Args the whole argument vector, Env the complete environment as KEY=VALUE.
	Path string
	Args []string
	Env  []string
	// Architecture is preferred. A program that does not contain it is executed as it is.
	Architecture Architecture
}

// Command is the argument vector and environment that make self, the absolute file name of the daemon's program, carry
// out the job.
func (j *Job) Command(self string) (args, env []string) {
	args = append([]string{self, marker, string(j.Architecture), j.Path}, j.Args...)
	env = make([]string, 0, len(j.Env)+1)
	env = append(env, stepEnv)
	for _, entry := range j.Env {
		env = append(env, envPrefix+entry)
	}
	return args, env
}

// Invoked tells whether the arguments of this process, os.Args, come from [Job.Command]. It is for the first lines of
// main.
func Invoked(args []string) bool { return len(args) > 1 && args[1] == marker }

// parse is the reverse of Command.
func parse(args, env []string) (*Job, error) {
	if len(args) < 5 || args[1] != marker {
		return nil, fmt.Errorf("execute builder: %d arguments are too few", len(args))
	}
	j := &Job{Architecture: Architecture(args[2]), Path: args[3], Args: args[4:], Env: []string{}}
	if !filepath.IsAbs(j.Path) {
		return nil, fmt.Errorf("execute builder: path '%s' is not absolute", j.Path)
	}
	if j.Architecture != Any {
		if _, err := j.Architecture.cpuType(); err != nil {
			return nil, fmt.Errorf("execute builder '%s': %w", j.Path, err)
		}
	}
	for _, entry := range env {
		if own, ok := strings.CutPrefix(entry, envPrefix); ok {
			j.Env = append(j.Env, own)
		}
	}
	return j, nil
}
