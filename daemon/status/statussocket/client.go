package statussocket

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nixdaemon/daemon/status"
	"nixdaemon/protocol/client"
)

const (
	// mostAnswer bounds what is read of an answer that has to be whole.
	mostAnswer = 64 << 20
	// patience is how long a server may take to tell its status.
	patience = 10 * time.Second
	// mostServers bounds how many are asked.
	mostServers = 256
)

// NobodyError says that no server answers.
type NobodyError struct{ Dir string }

func (e *NobodyError) Error() string {
	return fmt.Sprintf("no daemon tells its status in '%s'; is one running that may be asked?", e.Dir)
}

// answer is what a server says that is not 200 OK.
type answerError struct {
	code int
	text string
}

func (e *answerError) Error() string { return e.text }

// sockets are those of the servers behind a directory, the newest process number first.
func sockets(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NobodyError{dir}
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	slices.SortFunc(pids, func(a, b int) int { return cmp.Compare(b, a) })
	var paths []string
	for _, pid := range pids[:min(len(pids), mostServers)] {
		paths = append(paths, filepath.Join(dir, strconv.Itoa(pid)))
	}
	return paths, nil
}

// removeDead removes sockets on which nobody listens any more.
func removeDead(dir string) {
	paths, err := sockets(dir)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, path := range paths {
		conn, err := dial(ctx, path)
		if errors.Is(err, syscall.ECONNREFUSED) {
			os.Remove(path)
		}
		if conn != nil {
			conn.Close()
		}
	}
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	c, err := client.Unix(path)(ctx)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(net.Conn)
	if !ok {
		return nil, errors.Join(errors.New("connection of another kind"), c.Close())
	}
	return conn, nil
}

// isGone tells whether an error means that there is no server.
func isGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// ask sends one request on a connection of its own. The body must be closed.
func ask(ctx context.Context, socket, method, path string, query url.Values) (io.ReadCloser, error) {
	t := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) },
		DisableKeepAlives: true, DisableCompression: true,
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://nix-daemon"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	return nil, &answerError{resp.StatusCode, strings.TrimSpace(string(text))}
}

// Ask asks all servers behind a directory for a snapshot. When none answers the error is a *NobodyError.
func Ask(ctx context.Context, dir string) (status.Snapshot, error) {
	paths, err := sockets(dir)
	if err != nil {
		return status.Snapshot{}, err
	}
	var servers []status.Server
	var errs []error
	for _, path := range paths {
		s, err := askOne(ctx, path)
		switch {
		case err == nil:
			servers = append(servers, s)
		case !isGone(err):
			errs = append(errs, err)
		}
	}
	switch {
	case len(servers) > 0:
		return status.Join(time.Now(), servers...), nil
	case len(errs) > 0:
		return status.Snapshot{}, errors.Join(errs...)
	}
	return status.Snapshot{}, &NobodyError{dir}
}

func askOne(ctx context.Context, socket string) (s status.Server, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := ask(ctx, socket, http.MethodGet, "/v1/status", nil)
	if err != nil {
		return s, err
	}
	defer body.Close()
	err = json.NewDecoder(io.LimitReader(body, mostAnswer)).Decode(&s)
	return s, err
}

// CopyLog writes the log of a build: as it grows if it runs and follow is set, else what is stored of it.
func CopyLog(ctx context.Context, dir, what string, follow bool, w io.Writer) error {
	query := url.Values{"of": {what}}
	if follow {
		running := url.Values{"of": {what}, "running": {"1"}}
		err := first(dir, func(socket string) error { return copyLog(ctx, socket, running, w) })
		if !isUnknown(err) {
			return err
		}
	}
	return first(dir, func(socket string) error { return copyLog(ctx, socket, query, w) })
}

func copyLog(ctx context.Context, socket string, query url.Values, w io.Writer) error {
	body, err := ask(ctx, socket, http.MethodGet, "/v1/log", query)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err = io.Copy(w, body); errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the daemon has broken off the log")
	}
	return err
}

func isUnknown(err error) bool {
	var a *answerError
	return errors.As(err, &a) && a.code == http.StatusNotFound
}

// first asks one server after the other until one knows what is meant.
func first(dir string, do func(socket string) error) error {
	paths, err := sockets(dir)
	if err != nil {
		return err
	}
	var unknown error
	for _, path := range paths {
		err := do(path)
		switch {
		case isUnknown(err):
			unknown = err
		case !isGone(err):
			return err
		}
	}
	if unknown != nil {
		return unknown
	}
	return &NobodyError{dir}
}

// Cancel ends a build, and tells which it was.
func Cancel(ctx context.Context, dir, what string) (build string, err error) {
	err = first(dir, func(socket string) error {
		body, err := ask(ctx, socket, http.MethodPost, "/v1/cancel", url.Values{"build": {what}})
		if err != nil {
			return err
		}
		defer body.Close()
		text, err := io.ReadAll(io.LimitReader(body, 64<<10))
		build = string(text)
		return err
	})
	return build, err
}
