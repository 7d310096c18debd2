package daemon

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"

	"nixdaemon/daemon/supervisor"
)

// notifier tells the service manager how we are (sd_notify(3)). Where none
// listens it does nothing.
func notifier(log zerolog.Logger) func(state string) {
	return func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Debug().Err(err).Msg("cannot notify the service manager")
		}
	}
}

// patienceEvery is how often more time is asked for while the store opens: the
// verification after a power cut may take long.
const patienceEvery = 10 * time.Second

// statusEvery is how often people are told what goes on.
const statusEvery = time.Second

// every calls say now and then, and once at the beginning, until stop is
// called.
func every(d time.Duration, say func()) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			say()
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

// opening asks for time until stop is called.
func opening(c *supervisor.Control) (stop func()) {
	c.Status("Opening the store")
	return every(patienceEvery, c.Patience)
}

// telling has people told of changes until stop is called.
func telling(c *supervisor.Control, s *Server, b backend) (stop func()) {
	var told string
	return every(statusEvery, func() {
		text := statusText(b.building(), s.Connections(), s.Busy())
		if problem := problem(b); problem != "" {
			text = strings.ToUpper(problem[:1]) + problem[1:]
		}
		if text != told {
			told = text
			c.Status(text)
		}
	})
}

// problem is why nobody is served; "" if all are.
func problem(b backend) string {
	if r, ok := b.(*reopening); ok {
		return r.problem()
	}
	return ""
}

// mostNamed is how many builds a status names.
const mostNamed = 4

// statusText is what people read in "systemctl status".
func statusText(building []string, clients, busy int) string {
	text := "No build running"
	if n := len(building); n > 0 {
		named := building[:min(n, mostNamed)]
		text = fmt.Sprintf("Building %s", strings.Join(named, ", "))
		if n > mostNamed {
			text += fmt.Sprintf(" and %d more", n-mostNamed)
		}
	}
	return fmt.Sprintf("%s; %s connected, %d waiting for an answer", text, count(clients, "client"), busy)
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
