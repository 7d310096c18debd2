package localstore

import (
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// sparseArchive is the archive of a large file of zeros, made as it is read.
func sparseArchive(size uint64) io.Reader {
	r, w := io.Pipe()
	go func() {
		nw := nar.NewWriter(w)
		err := nw.Regular("", false, size, zeros{})
		if err == nil {
			err = nw.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestMemoryIsBounded adds and dumps 4 GiB.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 4 GiB several times")
	}
	const size, limit = 4 << 30, 64 << 20
	s := open(t, nil)
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var peak atomic.Uint64
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				peak.Store(max(peak.Load(), now.HeapAlloc))
			}
		}
	}()
	spec := DumpSpec{Name: "big", Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	info, err := s.AddDump(ctx, spec, sparseArchive(size), AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Dump(ctx, info.Path, io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeletePath(ctx, info.Path); err != nil {
		t.Fatal(err)
	}
	if err := s.AddNAR(ctx, info, sparseArchive(size), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	close(stop)
	<-watched
	if grown := int64(peak.Load()) - int64(before.HeapAlloc); grown > limit {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if st, err := os.Stat(s.RealPath(info.Path)); err != nil || st.Size() != size {
		t.Error(st.Size(), err)
	}
}
