package supervisor

import (
	"time"

	"golang.org/x/sys/unix"
)

// checkEvery is how often servers are asked whether they are well: twice in the time after which the service manager
// would doubt it.
func (s *Supervisor) checkEvery() time.Duration {
	every := min(aliveEvery, s.o.Silence/3)
	if s.o.Watchdog > 0 {
		every = min(every, s.o.Watchdog/2)
	}
	return max(every, time.Millisecond)
}

// check asks the servers, ends the one that has not answered for long, and tells the service manager that the
// supervisor is well.
func (s *Supervisor) check() {
	if s.o.Watchdog > 0 {
		s.o.Notify("WATCHDOG=1")
	}
	for _, v := range s.servers() {
		switch {
		case v.phase == starting:
			// What it verifies may take as long as it takes.
		case v.asked.IsZero():
			v.asked = time.Now()
			v.order(orderAlive)
		case time.Since(v.asked) > s.o.Silence+abortTime:
			unix.Kill(v.pid, unix.SIGKILL)
		case time.Since(v.asked) > s.o.Silence:
			s.o.Log.Error().Int("pid", v.pid).Dur("silent", time.Since(v.asked)).Msg("the server does not answer: ending it")
			// Go's runtime writes down what each goroutine does.
			unix.Kill(v.pid, unix.SIGABRT)
		}
	}
}
