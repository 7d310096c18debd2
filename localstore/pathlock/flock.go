package pathlock

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what is asked of flock(2).
type Kind int

// The kinds of lock. Converting between shared and exclusive is not atomic:
// the kernel lets go of the old lock before it takes the new one.
const (
	Shared    Kind = unix.LOCK_SH
	Exclusive Kind = unix.LOCK_EX
	Unlocked  Kind = unix.LOCK_UN
)

// The steps between attempts while a foreign process holds a lock. Short at first, since most locks are held
// for milliseconds; never long, since the wait must end soon after the holder's.
var pollSteps = [...]time.Duration{
	1 * time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
}

// TryFlock takes the lock without waiting and reports whether it did. Unlocking always succeeds.
func TryFlock(f *os.File, kind Kind) (bool, error) {
	return tryFlockFD(int(f.Fd()), kind)
}

// Flock takes the lock, waiting until it can or ctx ends.
// onWait, if not nil, is called once before the wait begins.
// The lock belongs to the open file: it ends when f is closed, or at [TryFlock] with Unlocked.
func Flock(ctx context.Context, f *os.File, kind Kind, onWait func()) error {
	if onWait == nil {
		onWait = func() {}
	}
	return flockFD(ctx, int(f.Fd()), kind, false, onWait)
}

func tryFlockFD(fd int, kind Kind) (bool, error) {
	for {
		switch err := unix.Flock(fd, int(kind)|unix.LOCK_NB); err {
		case nil:
			return true, nil
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
		default:
			return false, fmt.Errorf("acquiring/releasing lock: %w", err)
		}
	}
}

func flockFD(ctx context.Context, fd int, kind Kind, try bool, onWait func()) error {
	for i := 0; ; i++ {
		if ok, err := tryFlockFD(fd, kind); ok || err != nil {
			return err
		}
		if try {
			return ErrLocked
		}
		if i == 0 {
			onWait()
		}
		if err := pause(ctx, pollSteps[min(i, len(pollSteps)-1)]); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
