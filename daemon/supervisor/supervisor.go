package supervisor

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Options say what to run and for whom.
type Options struct {
	// Program is the file to start, now and again; Args are its arguments, the name first, Env its environment.
	Program string
	Args    []string
	Env     []string
	// Listeners are the descriptors of the sockets that servers accept on; they are not closed.
	Listeners []int
	// Publish has clients find the sockets, once a server is ready or, that they wait rather than give up, when it has
	// taken long to start; nil if they find them anyway.
	Publish func() error
	// Notify tells the service manager (sd_notify(3)); Watchdog is how often it wants to hear that we are well, 0 for
	// never.
	Notify   func(state string)
	Watchdog time.Duration
	// OwnMounts gives each server a mount namespace of its own, in which it sees what is mounted later, too. Linux only.
	OwnMounts bool
	// Stay has SIGTERM wait for the servers' end as SIGINT does.
	Stay bool
	// Deafen has the process ignore SIGHUP, until hear is called; nil if it is not wanted. See becomeNew.
	Deafen func() (hear func())
	// Limits; zero values are the defaults.
	Silence time.Duration // after which a server that does not answer is ended; three watchdog times where there is one
	Leave   time.Duration // how long servers may take to begin draining
	Log     zerolog.Logger
}

const (
	defaultSilence = 3 * time.Minute
	// silences is how often a server may miss the service manager's time: it has more to do than its supervisor.
	silences     = 3
	defaultLeave = 5 * time.Second
	aliveEvery   = 20 * time.Second
	// A server that has served for less than steady has died young, and the next is started after a pause that doubles.
	steady     = 10 * time.Second
	firstPause = 100 * time.Millisecond
	mostPause  = 10 * time.Second
	// unseen is how long the first server may take before clients see the socket.
	unseen = 2 * time.Second
	// morePatience is what the service manager is asked for.
	morePatience = time.Minute
	// abortTime is what a server that does not answer gets for writing down what it does.
	abortTime = 5 * time.Second
)

// StartError is returned when the first server gave up before it was ready. It has said why.
type StartError struct{ State *os.ProcessState }

func (e *StartError) Error() string { return fmt.Sprintf("the server ended at once: %v", e.State) }

// Supervisor is one. Everything but events and left belongs to Run.
type Supervisor struct {
	o      Options
	events chan event
	left   chan struct{} // closed when Run returns
	// program is what stood at its place when we began; nil if that could not be found out.
	program os.FileInfo

	current *server // nil while a dead one is replaced
	next    *server // starts to take the place of current
	old     []*server
	again   *time.Timer // starts a server
	pause   time.Duration
	ready   bool // the service manager has been told
	leaving int  // how often we were asked to end
	staying bool // until the last server has ended
	told    string
}

// New makes a supervisor; Run starts it.
func New(o Options) *Supervisor {
	o.Silence = cmp.Or(o.Silence, silences*o.Watchdog, defaultSilence)
	o.Leave = cmp.Or(o.Leave, defaultLeave)
	again := time.NewTimer(time.Hour)
	again.Stop()
	program, err := os.Stat(o.Program)
	if err != nil {
		program = nil
	}
	return &Supervisor{o: o, events: make(chan event), left: make(chan struct{}), again: again, program: program}
}

// Run supervises until it is told to leave by one of the signals. An error is a *StartError, or says that no server
// could be started. Goroutines that wait for processes which go on end with them.
func (s *Supervisor) Run(signals <-chan os.Signal) error {
	defer close(s.left)
	if s.ready { // adopted
		s.o.Log.Info().Msg("this is the new program")
		s.o.Notify(fmt.Sprintf("MAINPID=%d\nREADY=1", os.Getpid()))
	} else if v, err := s.launch(false); err != nil {
		return err
	} else {
		s.current = v
	}
	tick := time.NewTicker(s.checkEvery())
	defer tick.Stop()
	var deadline <-chan time.Time
	unseen := time.After(unseen)
	for {
		if s.leaving > 0 && s.mayLeave() {
			return nil
		}
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				s.reload()
				continue
			}
			s.leave(sig)
			if deadline == nil && !s.staying {
				deadline = time.After(s.o.Leave)
			}
		case <-deadline:
			if s.staying {
				continue
			}
			s.o.Log.Warn().Msg("servers do not answer the order to drain; leaving them alone")
			return nil
		case e := <-s.events:
			if err := s.take(e); err != nil {
				return err
			}
		case <-unseen:
			if err := s.publish(); err != nil {
				return err
			}
		case <-s.again.C:
			s.replace()
		case <-tick.C:
			s.check()
		}
		s.report()
	}
}

// servers are all that live.
func (s *Supervisor) servers() []*server {
	all := slices.Clone(s.old)
	for _, v := range []*server{s.current, s.next} {
		if v != nil {
			all = append(all, v)
		}
	}
	return all
}

// take acts on what a server has said or on its end.
func (s *Supervisor) take(e event) error {
	if e.end != nil {
		return s.ended(e.from, e.end)
	}
	was := e.from.phase
	if e.from.hear(e.line) {
		s.o.Notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", morePatience.Microseconds()))
	}
	if was == starting && e.from.phase == serving {
		if err := s.publish(); err != nil {
			return err
		}
		s.serves(e.from)
	}
	return nil
}

// publish has clients find the sockets, once.
func (s *Supervisor) publish() error {
	publish := s.o.Publish
	s.o.Publish = nil
	if publish == nil {
		return nil
	}
	return publish()
}

// serves is what happens when a server is ready.
func (s *Supervisor) serves(v *server) {
	if v == s.next {
		s.next = nil
		if s.current != nil {
			s.retire(s.current)
		}
		s.current = v
		s.o.Log.Info().Int("pid", v.pid).Msg("a new server has taken over")
	}
	s.becomeNew()
	s.o.Notify("READY=1")
	s.ready = true
}

// retire has a server finish what it has begun.
func (s *Supervisor) retire(v *server) {
	s.old = append(s.old, v)
	v.drain()
}

// reload starts the server that shall take over.
func (s *Supervisor) reload() {
	if s.leaving > 0 || s.next != nil || s.current != nil && s.current.phase == starting {
		s.o.Log.Warn().Msg("asked to reload while a server starts or we leave: nothing done")
		return
	}
	s.o.Notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonic()))
	v, err := s.launch(s.current != nil)
	if err != nil {
		s.o.Log.Error().Err(err).Msg("reload")
		s.o.Notify("READY=1")
		return
	}
	s.again.Stop()
	s.next = v
}

// ended is what happens when a server has gone.
func (s *Supervisor) ended(v *server, how *os.ProcessState) error {
	switch {
	case v == s.next:
		s.next = nil
		s.o.Log.Error().Int("pid", v.pid).Stringer("end", how).Msg("the new server did not start; the old one goes on")
		s.o.Notify("READY=1")
	case v != s.current:
		s.old = slices.DeleteFunc(s.old, func(o *server) bool { return o == v })
		s.o.Log.Info().Int("pid", v.pid).Stringer("end", how).Msg("a server has finished")
	case s.leaving > 0:
		s.current = nil
	case !s.ready && how.ExitCode() >= 0:
		// It has found that it cannot serve; killed it would have said nothing of the kind.
		return &StartError{how}
	default:
		s.current = nil
		s.mourn(v, how)
	}
	return nil
}

// mourn has a server that died replaced: at once, but not again and again.
func (s *Supervisor) mourn(v *server, how *os.ProcessState) {
	var after time.Duration
	if v.phase == serving && time.Since(v.begun) >= steady {
		s.pause = 0
	} else {
		after = cmp.Or(s.pause, firstPause)
		s.pause = min(2*after, mostPause)
	}
	s.o.Log.Error().Int("pid", v.pid).Stringer("end", how).Dur("restart_in", after).Msg("the server has died")
	s.again.Reset(after)
}

// replace starts a server where there is none.
func (s *Supervisor) replace() {
	if s.leaving > 0 || s.current != nil || s.next != nil {
		return
	}
	v, err := s.launch(false)
	if err != nil {
		s.o.Log.Error().Err(err).Msg("restart the server")
		s.again.Reset(mostPause)
		return
	}
	s.current = v
}

// leave has all servers finish; asked a second time, at once; and a third time, whatever they do.
func (s *Supervisor) leave(sig os.Signal) {
	s.leaving++
	s.staying = s.staying || s.o.Stay || sig == syscall.SIGINT
	s.again.Stop()
	if s.leaving == 1 {
		s.o.Log.Info().Msg("told to end")
		s.o.Notify("STOPPING=1")
	}
	for _, v := range s.servers() {
		switch {
		case s.leaving > 2:
			unix.Kill(v.pid, unix.SIGKILL)
		case s.leaving > 1:
			v.order(orderCancel)
		default:
			v.drain()
		}
	}
}

// mayLeave tells whether no server needs us: each has ended, or goes on for clients that it still has.
func (s *Supervisor) mayLeave() bool {
	return !slices.ContainsFunc(s.servers(), func(v *server) bool { return s.staying || v.clients <= 0 })
}

// report tells the service manager what goes on, when that has changed.
func (s *Supervisor) report() {
	text := "Starting"
	switch {
	case s.leaving > 0:
		text = "Finishing requests"
	case s.current == nil:
		text = "The server has died and will be started again"
	case s.current.status != "":
		text = s.current.status
	case s.current.phase == serving:
		text = "Serving clients"
	}
	if len(s.old) > 0 {
		text += fmt.Sprintf("; %d earlier servers finish requests", len(s.old))
	}
	if text != s.told {
		s.told = text
		s.o.Notify("STATUS=" + text)
	}
}
