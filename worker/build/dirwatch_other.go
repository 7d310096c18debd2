//go:build !linux

package build

import "errors"

// storeWatch is for what only Linux has.
type storeWatch struct{}

func watchStore(string) (*storeWatch, error) { return nil, errors.ErrUnsupported }

func (*storeWatch) changes(func(string)) bool { return false }

func (*storeWatch) close() {}
