package supervisor

import "golang.org/x/sys/unix"

// monotonic is the time that sd_notify(3) wants with RELOADING=1, in microseconds.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return t.Nano() / 1000
}
