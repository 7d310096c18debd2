package builtin

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/worker/builtin/builtinjob"
)

func TestFetchStatuses(t *testing.T) {
	for _, tt := range []struct{ status, tries int }{{400, 1}, {401, 1}, {403, 1}, {404, 1}, {407, 1}, {408, 5}, {410, 1}, {429, 5}, {500, 5},
		{501, 1}, {503, 5}, {505, 1}, {511, 1}, {202, 5}} {
		tries := 0
		u := serve(t, func(w http.ResponseWriter, r *http.Request) { tries++; w.WriteHeader(tt.status) })
		r := do(t, "fetchurl", fetch(u))
		r.fails(t, inFile("unable to download '"+u+"': HTTP error "+strconv.Itoa(tt.status)))
		if tries != tt.tries {
			t.Errorf("status %d: tried %d times, want %d", tt.status, tries, tt.tries)
		}
		base := 100 * time.Millisecond
		if tt.status == 429 || tt.status == 503 {
			base = 5 * time.Second
		}
		for i, pause := range r.pauses {
			if high := base << i; pause > high {
				t.Errorf("status %d: pause %d is %v, want at most %v", tt.status, i, pause, high)
			}
			want := fmt.Sprintf("warning: unable to download '%s': HTTP error %d; retrying in %d ms (attempt %d/5)", u, tt.status, pause.Milliseconds(), i+1)
			if got := r.warnings()[i]; got != want {
				t.Errorf("warning %q, want %q", got, want)
			}
		}
	}
}

func TestFetchRecovers(t *testing.T) {
	tries := 0
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries < 5 {
			w.WriteHeader(503)
			return
		}
		io.WriteString(w, "at last")
	})
	if got := do(t, "fetchurl", fetch(u)).contents(t); got != "at last" || tries != 5 {
		t.Errorf("got %q after %d attempts", got, tries)
	}
}

// cut serves data but breaks off in the middle of every whole answer.
func cut(data []byte, header http.Header, ranges bool, asked *[]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Header.Get("Range"))
		for name, values := range header {
			w.Header()[name] = values
		}
		if ranges && r.Header.Get("Range") != "" {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		if n := len(*asked); n < 3 {
			data = slices.Clone(data)
			w.Write(data[:len(data)/2])
			panic(http.ErrAbortHandler)
		}
		w.Write(data)
	}
}

func TestFetchBrokenOff(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	half := len(data) / 2
	for _, tt := range []struct {
		name   string
		header http.Header
		ranges bool
		asked  []string
		first  string // the end of the first warning
	}{
		{"goes on", http.Header{"Accept-Ranges": {"bytes"}, "Etag": {`"1"`}}, true, []string{"", fmt.Sprintf("bytes=%d-", half)},
			fmt.Sprintf("retrying from offset %d in ", half)},
		{"begins again", nil, false, []string{"", "", ""}, "retrying in "},
		{"lies about ranges", http.Header{"Accept-Ranges": {"bytes"}}, false, []string{"", fmt.Sprintf("bytes=%d-", half), ""},
			fmt.Sprintf("retrying from offset %d in ", half)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked []string
			u := serve(t, cut(data, tt.header, tt.ranges, &asked))
			r := do(t, "fetchurl", fetch(u))
			if r.contents(t) != string(data) {
				t.Error("wrong contents")
			}
			if diff := cmp.Diff(tt.asked, asked); diff != "" {
				t.Errorf("ranges (-want +got):\n%s", diff)
			}
			want := "warning: unable to download '" + u + "': HTTP error 200 (curl error: Transferred a partial file); " + tt.first
			if got := r.warnings(); len(got) == 0 || !strings.HasPrefix(got[0], want) {
				t.Errorf("warnings %q, want first %q", got, want)
			}
		})
	}
}

// A tree cannot be begun again while it is restored, only gone on with.
func TestFetchUnpackBrokenOff(t *testing.T) {
	archive := nartest.File(string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16)))
	var asked []string
	u := serve(t, cut(archive, http.Header{"Accept-Ranges": {"bytes"}, "Etag": {`"1"`}}, true, &asked))
	job := fetch(u)
	job.Env["unpack"] = "1"
	if r := do(t, "fetchurl", job); len(r.contents(t)) != 1<<20 || len(asked) != 2 {
		t.Errorf("asked %q", asked)
	}
	asked = nil
	job.Env["url"] = serve(t, cut(archive, nil, false, &asked))
	if r := do(t, "fetchurl", job); r.exit != 1 || !strings.Contains(uncoloured(r.log), "HTTP error 200 (curl error: Transferred a partial file)") || len(asked) != 1 {
		t.Errorf("exit status %d, asked %q, log:\n%s", r.exit, asked, r.log)
	}
}

func TestFetchStalled(t *testing.T) {
	release := make(chan struct{})
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "a few")
		w.(http.Flusher).Flush()
		<-release
	})
	defer close(release)
	job := fetch(u)
	job.Transfer = &builtinjob.Transfer{Attempts: 1, StalledTimeout: 1}
	do(t, "fetchurl", job).fails(t, inFile("unable to download '"+u+"': HTTP error 200 (curl error: Timeout was reached)"))
}

func TestFetchSpeed(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 32<<10)) })
	job := fetch(u)
	job.Transfer = &builtinjob.Transfer{Attempts: 1, Speed: 128}
	began := time.Now()
	if size, took := len(do(t, "fetchurl", job).contents(t)), time.Since(began); size != 32<<10 || took < 200*time.Millisecond {
		t.Errorf("got %d bytes in %v, want 32 KiB in a quarter of a second", size, took)
	}
}

func TestFetchInterrupted(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	b := &builder{job: &builtinjob.Job{}, getenv: func(string) string { return "" }, log: &logger{w: io.Discard}}
	// The default pause: what ends is the context.
	ctx, cancel := contextWithin(t, 50*time.Millisecond)
	defer cancel()
	f := newFetcher(b)
	defer f.close()
	_, err := f.open(ctx, u, nil)
	if want := "download of '" + u + "' was interrupted"; err == nil || uncoloured(err.Error()) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// A download is not held in memory, compressed or not.
func TestFetchMemory(t *testing.T) {
	const size = 64 << 20
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var out io.Writer = w
		if r.URL.Path == "/gzip" {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			out = z
		}
		chunk := make([]byte, 1<<20)
		for range size / len(chunk) {
			out.Write(chunk)
		}
	})
	for _, path := range []string{"/", "/gzip"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := do(t, "fetchurl", fetch(u+path))
		runtime.ReadMemStats(&after)
		if info, err := os.Stat(r.out); err != nil || info.Size() != size {
			t.Fatalf("%v, %v, log:\n%s", info, err, r.log)
		}
		// The server's own memory is counted too.
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
			t.Errorf("%s: allocated %d bytes for a download of %d", path, grown, size)
		}
	}
}

func BenchmarkFetch(b *testing.B) {
	data := make([]byte, 16<<20)
	u := serve(b, func(w http.ResponseWriter, r *http.Request) { w.Write(data) })
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		do(b, "fetchurl", fetch(u))
	}
}
