package statussocket

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"nixdaemon/daemon/status"
)

// Daemon is what is asked.
type Daemon interface {
	// Server tells everything that goes on.
	Server() status.Server
	// OpenLog opens the log of a build as v may see it: with running set of one that runs, or waits to.
	OpenLog(ctx context.Context, v status.Viewer, what string, running bool) (Log, error)
	// Cancel ends a build for v, and tells which it was.
	Cancel(v status.Viewer, what string) (build string, err error)
}

// Log is a log, as a client shows it.
type Log interface {
	// Read waits until there is something to read, or ctx ends. It ends with io.EOF.
	Read(ctx context.Context, p []byte) (int, error)
	Close() error
}

var (
	// ErrUnknown is wrapped when there is no such build or log.
	ErrUnknown = errors.New("there is no such build")
	// ErrForbidden is wrapped when that is the business of others.
	ErrForbidden = errors.New("not allowed")
)

// NewMux answers for a daemon; others may be mounted beside it.
func NewMux(d Daemon) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(d.Server().For(ViewerOf(r.Context())))
	})
	mux.HandleFunc("GET /v1/log", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		log, err := d.OpenLog(r.Context(), ViewerOf(r.Context()), q.Get("of"), q.Get("running") != "")
		if err != nil {
			refuse(w, err)
			return
		}
		defer log.Close()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if pass(r.Context(), w, log) != nil {
			panic(http.ErrAbortHandler) // so that whoever reads sees that it was not all
		}
	})
	mux.HandleFunc("POST /v1/cancel", func(w http.ResponseWriter, r *http.Request) {
		build, err := d.Cancel(ViewerOf(r.Context()), r.URL.Query().Get("build"))
		if err != nil {
			refuse(w, err)
			return
		}
		io.WriteString(w, build)
	})
	return mux
}

// pass sends a log on as it comes.
func pass(ctx context.Context, w http.ResponseWriter, log Log) error {
	out := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	if err := out.Flush(); err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := log.Read(ctx, buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err := out.Flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// refuse says why not.
func refuse(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	var ambiguous *status.AmbiguousError
	switch {
	case errors.Is(err, ErrUnknown):
		code = http.StatusNotFound
	case errors.Is(err, ErrForbidden):
		code = http.StatusForbidden
	case errors.As(err, &ambiguous):
		code = http.StatusConflict
	}
	http.Error(w, err.Error(), code)
}
