package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/activity"
)

func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// world is an engine that does not wait, and what it told.
type world struct {
	*Engine
	set    Settings
	env    map[string]string
	ids    activity.IDs
	mu     sync.Mutex
	pauses []time.Duration
	told   []string
}

func newWorld(t testing.TB) *world {
	w := &world{set: Settings{Attempts: 5, Connections: 25, HTTP2: true}, env: map[string]string{}}
	w.Engine = New(Options{Getenv: func(name string) string { return w.env[name] }, Pause: func(ctx context.Context, d time.Duration) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pauses = append(w.pauses, d)
		return ctx.Err()
	}})
	t.Cleanup(w.Close)
	return w
}

// get reads all that a URL has.
func (w *world) get(t testing.TB, r *Request) (string, error) {
	t.Helper()
	resp, err := w.Do(t.Context(), &w.set, r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

func TestPutAndGet(t *testing.T) {
	files := map[string][]byte{}
	header := http.Header{}
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPut:
			files[r.URL.Path], _ = io.ReadAll(r.Body)
			header = r.Header
			w.WriteHeader(201)
		default:
			text, ok := files[r.URL.Path]
			if !ok {
				w.WriteHeader(404)
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(text)))
			w.Write(text)
		}
	})
	w := newWorld(t)
	cache, err := NewHTTP(w.Engine, u+"/cache/?priority=5", "", "")
	if err != nil {
		t.Fatal(err)
	}
	c := Call{Settings: &w.set}
	contents := bytes.Repeat([]byte("contents"), 1<<18)
	body := func() (io.ReadCloser, int64, error) {
		return io.NopCloser(bytes.NewReader(contents)), int64(len(contents)), nil
	}
	if err := cache.Put(t.Context(), "nar/x.nar", body, "application/x-nix-nar", "", c); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(files["/cache/nar/x.nar"], contents) || header.Get("Content-Type") != "application/x-nix-nar" ||
		header.Get("Expect") != "100-continue" || header.Get("Accept-Encoding") != "" {
		t.Errorf("header %v, files of %d", header, len(files["/cache/nar/x.nar"]))
	}
	resp, err := cache.Get(t.Context(), "nar/x.nar?hash=1", c)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, contents) || resp.Size != int64(len(contents)) {
		t.Errorf("got %d bytes of %d: %v", len(got), resp.Size, err)
	}
	resp.Body.Close()
	for name, want := range map[string]bool{"nar/x.nar": true, "y": false} {
		if got, err := cache.Exists(t.Context(), name, c); got != want || err != nil {
			t.Errorf("%s exists: %v, %v", name, got, err)
		}
	}
	_, err = cache.Get(t.Context(), "y", c)
	if want := "file 'y' does not exist in binary cache '" + u + "/cache'"; !errors.Is(err, ErrNotFound) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestActivities(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "12345") })
	w := newWorld(t)
	text, err := w.get(t, &Request{URL: strings.Replace(u, "//", "//me:secret@", 1), Log: w, IDs: &w.ids, Parent: 7})
	if err != nil || text != "12345" {
		t.Fatal(text, err)
	}
	want := []string{"start 4 101 downloading '" + u + "' " + u + " 7", "result 105 5 5 0 0", "stop"}
	if diff := cmp.Diff(want, w.told); diff != "" {
		t.Errorf("activities (-want +got):\n%s", diff)
	}
}

func BenchmarkDo20K(b *testing.B) {
	data := make([]byte, 20<<10)
	u := serve(b, func(w http.ResponseWriter, r *http.Request) { w.Write(data) })
	w := newWorld(b)
	w.set.StalledTimeout = 300 * time.Second
	buffer := make([]byte, 32<<10)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := w.Do(b.Context(), &w.set, &Request{URL: u, Log: activity.Discard{}, IDs: &w.ids})
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = resp.Body.Read(buffer)
		}
		resp.Body.Close()
	}
}
