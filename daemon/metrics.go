package daemon

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// What those who read numbers may take.
const (
	scrapeHeader  = 10 * time.Second
	scrapeAnswer  = time.Minute
	scrapeIdle    = 5 * time.Minute
	scrapeHeaders = 16 << 10
	// listenAgain is how often it is tried to listen while another server,
	// which is about to let go, still does.
	listenAgain = time.Second
)

// serveMetrics serves numbers at /metrics of a TCP address until stop is called
// or until is closed, so that the next server can have the address; an empty
// address is none. That it cannot be had is logged, and tried again.
func serveMetrics(address string, numbers http.Handler, until <-chan struct{}, log zerolog.Logger) (stop func()) {
	if address == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.Handle("/metrics", numbers)
	s := &http.Server{
		Handler: mux, ReadHeaderTimeout: scrapeHeader, ReadTimeout: scrapeHeader, WriteTimeout: scrapeAnswer,
		IdleTimeout: scrapeIdle, MaxHeaderBytes: scrapeHeaders,
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		l := listenPatiently(ctx, address, log)
		if l == nil {
			return
		}
		log.Info().Stringer("address", l.Addr()).Msg("serving metrics")
		if err := s.Serve(l); err != nil && ctx.Err() == nil {
			log.Error().Err(err).Msg("serve metrics")
		}
	})
	wait.Go(func() {
		select {
		case <-until:
			cancel()
		case <-ctx.Done():
		}
		s.Close()
	})
	return func() {
		cancel()
		wait.Wait()
	}
}

// listenPatiently gives a listener, or nil when ctx has ended.
func listenPatiently(ctx context.Context, address string, log zerolog.Logger) net.Listener {
	for told := false; ; told = true {
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", address)
		if err == nil {
			return l
		}
		if ctx.Err() != nil {
			return nil
		}
		if !told {
			log.Warn().Err(err).Msg("cannot serve metrics yet")
		}
		pause(ctx, listenAgain)
	}
}
