package sandbox

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/internal/plan"
)

func TestIsolatedError(t *testing.T) {
	spec := &Spec{Path: "/bin/sh"}
	tests := []struct {
		name   string
		step   plan.Step
		want   string
		groups bool
	}{
		{"sandbox", plan.Step{Verb: "mount", Target: "/proc", Call: "mount"}, "set up sandbox of '/bin/sh': mount '/proc': operation not permitted", false},
		{"groups", plan.Step{Verb: "drop supplementary groups", Call: "setgroups"},
			"set up sandbox of '/bin/sh': supplementary groups cannot be dropped: drop supplementary groups: operation not permitted", true},
		{"builder", plan.Step{Verb: "start builder", Target: "/bin/sh", Call: "execve"}, "start builder '/bin/sh': operation not permitted", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := isolatedError(spec, &stepError{tt.step, unix.EPERM})
			if err.Error() != tt.want || errors.Is(err, ErrGroups) != tt.groups || !errors.Is(err, unix.EPERM) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
