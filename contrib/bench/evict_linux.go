package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// evict takes files out of the page cache, but for what somebody else has mapped: what the machine's other programs
// use stays as it is.
func evict(files []string) error {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = f.Sync()
		if err == nil {
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("evict %s: %w", name, err)
		}
	}
	return nil
}
