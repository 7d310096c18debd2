package sandbox

import (
	"fmt"
	"time"
)

// killLimit is how long a killed process may take to go away, which is long only in uninterruptible disk waits.
const killLimit = 10 * time.Second

// killUser kills all processes of uid and returns when none is left.
func killUser(uid uint32) error {
	start := time.Now()
	for delay := 100 * time.Microsecond; ; delay = min(2*delay, 20*time.Millisecond) {
		alone, err := sweepUser(uid)
		if err != nil {
			return err
		}
		if alone {
			return nil
		}
		left, err := processesOf(uid)
		if err != nil {
			return fmt.Errorf("look for processes of uid %d: %w", uid, err)
		}
		if len(left) == 0 {
			return nil
		}
		if time.Since(start) > killLimit {
			return fmt.Errorf("kill processes of uid %d: still alive: %v", uid, left)
		}
		time.Sleep(delay)
	}
}
