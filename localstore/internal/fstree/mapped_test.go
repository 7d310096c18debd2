package fstree

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func bigFileIn(t *testing.T, d *Dir, size int) []byte {
	t.Helper()
	os.Remove(filepath.Join(d.Path(), "x")) // it cannot be opened for writing
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
	if err := os.WriteFile(filepath.Join(d.Path(), "x"), data, 0o444); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDumpMapped(t *testing.T) {
	d := tempDir(t)
	for _, size := range []int{mapFrom - 1, mapFrom, mapFrom + 1, mapWindow, mapWindow + 1, 2*mapWindow + 4095} {
		data := bigFileIn(t, d, size)
		var read, mapped bytes.Buffer
		if err := d.Dump(ctx, "x", &read, DumpOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := d.Dump(ctx, "x", &mapped, DumpOptions{Map: true}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read.Bytes(), mapped.Bytes()) || !bytes.Contains(mapped.Bytes(), data) {
			t.Errorf("a file of %d bytes is not what it was", size)
		}
		os.Remove(filepath.Join(d.Path(), "x"))
	}
}

// writerFunc is a writer that is a function.
type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestDumpMappedShrinks: a file that is cut off while it is read is an error, as when it is read.
func TestDumpMappedShrinks(t *testing.T) {
	d := tempDir(t)
	bigFileIn(t, d, 3<<20)
	touched := 0
	err := d.Dump(ctx, "x", writerFunc(func(p []byte) (int, error) {
		if len(p) > mapFrom {
			if err := os.Truncate(filepath.Join(d.Path(), "x"), 4096); err != nil {
				t.Error(err)
			}
			for i := 0; i < len(p); i += 4096 {
				touched += int(p[i])
			}
		}
		return len(p), nil
	}), DumpOptions{Map: true})
	if err == nil || !strings.Contains(err.Error(), "reading file") {
		t.Errorf("read %d: %v", touched, err)
	}
	// Other panics stay what they are.
	bigFileIn(t, d, mapFrom)
	defer func() {
		if recover() == nil {
			t.Error("a writer's panic is lost")
		}
	}()
	d.Dump(ctx, "x", writerFunc(func(p []byte) (int, error) {
		if len(p) >= mapFrom {
			panic("mine")
		}
		return len(p), nil
	}), DumpOptions{Map: true})
}

func TestDumpMappedIsInterrupted(t *testing.T) {
	d := tempDir(t)
	bigFileIn(t, d, 2*mapWindow)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	total := 0
	err := d.Dump(ctx, "x", writerFunc(func(p []byte) (int, error) {
		cancel()
		total += len(p)
		return len(p), nil
	}), DumpOptions{Map: true})
	if !errors.Is(err, context.Canceled) || total > mapWindow+1000 {
		t.Errorf("wrote %d bytes: %v", total, err)
	}
}

func BenchmarkDumpMapped(b *testing.B) {
	for name, o := range map[string]DumpOptions{"read": {}, "mapped": {Map: true}} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			d, err := OpenRoot(dir)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			const size = 1 << 20
			if err := os.WriteFile(filepath.Join(dir, "x"), make([]byte, size), 0o444); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			for b.Loop() {
				if err := d.Dump(ctx, "x", io.Discard, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
