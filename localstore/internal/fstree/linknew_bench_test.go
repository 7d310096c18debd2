package fstree

import (
	"bytes"
	"fmt"
	"strings"
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
	var cpu int64
	for n := 0; b.Loop(); n++ {
		data := archive(b, func(w *nar.Writer) {
			w.Directory("")
			for i := range files {
				text := fmt.Sprintf("%08d", i)
				if !same {
					text = fmt.Sprintf("%08d", n*files+i)
				}
				file(w, fmt.Sprintf("%04d", i), strings.Repeat(text, size/8), false)
			}
			w.EndDirectory()
		})
		cpu -= cpuTime(b)
		if _, err := d.Restore(fmt.Sprintf("tree-%d", n), bytes.NewReader(data), nil, o); err != nil {
			b.Fatal(err)
		}
		cpu += cpuTime(b)
	}
	b.ReportMetric(float64(cpu)/float64(b.N*files), "cpu-ns/file")
}

func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
