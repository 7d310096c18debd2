package fstree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nar"
)

// BenchmarkRestoreLinked adds trees of 100 small files, new ones and such as are there already, with and without linking
// them. CPU time counts: it is what others do not get.
func BenchmarkRestoreLinked(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10} {
		for _, same := range []bool{false, true} {
			for _, links := range []bool{false, true} {
				b.Run(fmt.Sprintf("size=%d/same=%t/link=%t", size, same, links), func(b *testing.B) {
					restoreMany(b, size, same, links)
				})
			}
		}
	}
}

func restoreMany(b *testing.B, size int, same, links bool) {
	const files = 100
	d := tempDir(b)
	if err := d.Mkdir(".links", 0o755); err != nil {
		b.Fatal(err)
	}
	l, err := d.Open(".links")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var o RestoreOptions
	if links {
		o.Link = NewOptimiser(d, l, OptimiseOptions{})
	}
	var data bytes.Buffer
	text := make([]byte, size)
	var cpu int64
	for n := 0; b.Loop(); n++ {
		first := n * files
		if same {
			first = 0
		}
		data.Reset()
		b.StopTimer()
		manyFiles(b, &data, text, first, files)
		b.StartTimer()
		cpu -= cpuTime(b)
		if _, err := d.Restore(fmt.Sprintf("tree-%d", n), &data, nil, o); err != nil {
			b.Fatal(err)
		}
		cpu += cpuTime(b)
	}
	b.ReportMetric(float64(cpu)/float64(b.N*files), "cpu-ns/file")
}

// manyFiles writes a tree of files that each hold a number over and over. It makes no garbage, whose collection would count.
func manyFiles(b *testing.B, to io.Writer, text []byte, first, files int) {
	w := nar.NewWriter(to)
	err := w.Directory("")
	for i := range files {
		for at := 0; at < len(text); at += 8 {
			binary.LittleEndian.PutUint64(text[at:], uint64(first+i))
		}
		err = errors.Join(err, w.Regular(fmt.Sprintf("%04d", i), false, uint64(len(text)), bytes.NewReader(text)))
	}
	if err = errors.Join(err, w.EndDirectory(), w.Close()); err != nil {
		b.Fatal(err)
	}
}

func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
