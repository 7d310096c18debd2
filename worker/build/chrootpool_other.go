//go:build !linux

package build

import "errors"

func inodeFlags(string) (int, error) { return 0, errors.ErrUnsupported }

func asMade(string, uint32, int) error { return errors.ErrUnsupported }

func touch(string) error { return errors.ErrUnsupported }
