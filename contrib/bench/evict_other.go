//go:build !linux

package main

import "errors"

// evict is for Linux, as are the figures that the bench reads from /proc.
func evict([]string) error {
	return errors.New("only Linux takes files out of the page cache on request")
}
