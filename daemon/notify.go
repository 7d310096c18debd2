package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
)

// How the service manager's patience is asked for while the store opens: the
// verification after a power cut may take long.
const (
	extendEvery = 10 * time.Second
	extendBy    = 60 * time.Second
)

// notifier tells the service manager how we are (sd_notify(3)). Where none
// listens it does nothing.
type notifier struct {
	log   zerolog.Logger
	every time.Duration
}

func (n notifier) say(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Debug().Err(err).Msg("cannot notify the service manager")
	}
}

// opening asks for more time, again and again, until done is called.
func (n notifier) opening(ctx context.Context) (done func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(n.every)
		defer tick.Stop()
		for {
			n.say(fmt.Sprintf("STATUS=Opening the store\nEXTEND_TIMEOUT_USEC=%d", extendBy.Microseconds()))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		wait.Wait()
	}
}

func (n notifier) ready() { n.say("READY=1\nSTATUS=Serving clients") }

// stopping asks for the time that requests under way may take.
func (n notifier) stopping() {
	n.say(fmt.Sprintf("STOPPING=1\nSTATUS=Finishing requests\nEXTEND_TIMEOUT_USEC=%d", (2 * DrainTime).Microseconds()))
}
