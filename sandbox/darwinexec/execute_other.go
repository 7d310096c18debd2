//go:build !darwin

package darwinexec

import "errors"

// execute is for macOS alone: nothing else makes such a job.
func execute(*Job) error { return errors.ErrUnsupported }
