package localstore

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"nixdaemon/protocol/nar"
)

// halfDuplicates adds paths of 20 files each, of which every other one equals the one before it.
func halfDuplicates(b *testing.B, s *Store, paths int) {
	b.Helper()
	im := s.NewImport(AddOptions{})
	for i := range paths {
		var all bytes.Buffer
		w := nar.NewWriter(&all)
		w.Directory("")
		for j := range 20 {
			text := strings.Repeat(fmt.Sprintf("%08d", (i*20+j)/2), 125)
			w.Regular(fmt.Sprintf("file-%02d", j), false, uint64(len(text)), strings.NewReader(text))
		}
		w.EndDirectory()
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		info := narInfo(b, s, fmt.Sprint("half-", i), all.Bytes())
		if err := im.Add(ctx, info, &all); err != nil {
			b.Fatal(err)
		}
	}
	if err := im.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	if err := im.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkOptimiseAll optimises a store of 20,000 files, half of which duplicate others.
func BenchmarkOptimiseAll(b *testing.B) {
	const paths = 1000
	for b.Loop() {
		b.StopTimer()
		s := openWith(b, testOptions(b))
		halfDuplicates(b, s, paths)
		b.StartTimer()
		stats, err := s.OptimiseAll(ctx, OptimiseProgress{})
		if err != nil || stats.FilesLinked != paths*10 {
			b.Fatal(stats, err)
		}
		b.StopTimer()
		closeStore(b, s)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N*paths*20)/b.Elapsed().Seconds(), "files/s")
}

// BenchmarkOptimiseAgain optimises a store in which all that is alike is linked.
func BenchmarkOptimiseAgain(b *testing.B) {
	const paths = 1000
	s := openWith(b, testOptions(b))
	defer s.Close()
	halfDuplicates(b, s, paths)
	if _, err := s.OptimiseAll(ctx, OptimiseProgress{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if stats, err := s.OptimiseAll(ctx, OptimiseProgress{}); err != nil || stats.FilesLinked != 0 {
			b.Fatal(stats, err)
		}
	}
	b.ReportMetric(float64(b.N*paths*20)/b.Elapsed().Seconds(), "files/s")
}
