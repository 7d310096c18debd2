//go:build !linux && !darwin

package localstore

import "errors"

// bootID tells this run of the kernel from all others, which this system cannot.
func bootID() (string, error) { return "", errors.ErrUnsupported }
