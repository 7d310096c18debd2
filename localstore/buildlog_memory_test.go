package localstore

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"nixdaemon/protocol/compression"
)

// TestLongLogMemory: compressing a long log takes little enough that many builds can at once.
func TestLongLogMemory(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := &logWriter{file: file, encoders: new(compression.Encoders)}
	line := make([]byte, 0, 100)
	for i := range 40_000 {
		line = fmt.Appendf(line[:0], "cc -O2 -c module%d/file%d.c -o file%d.o\n", i%311, i, i)
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	const most = 15 << 20 // at level 9 it would be more than 18; the race detector has its share
	if took := after.TotalAlloc - before.TotalAlloc; took > most {
		t.Errorf("it took %d bytes, want at most %d", took, most)
	}
}
