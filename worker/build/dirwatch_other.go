//go:build !linux

package build

import "errors"

// dirWatch is for what only Linux has.
type dirWatch struct{}

func newDirWatch() (*dirWatch, error) { return nil, errors.ErrUnsupported }

func watchStore(string) (*dirWatch, error) { return nil, errors.ErrUnsupported }

func (*dirWatch) addInner(string) (int, error) { return -1, errors.ErrUnsupported }

func (*dirWatch) remove(int) {}

func (*dirWatch) changes(func(int, string)) bool { return false }

func (*dirWatch) close() {}
