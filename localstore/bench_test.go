package localstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// text is about as long as a small derivation.
func benchText(i int) string { return strings.Repeat("0123456789abcde", 100) + fmt.Sprint(i) }

func BenchmarkAddText(b *testing.B) {
	s := open(b, nil)
	reportCPU(b)
	for i := 0; b.Loop(); i++ {
		addText(b, s, "text", benchText(i))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "texts/s")
}

func BenchmarkAddTextParallel(b *testing.B) {
	s := open(b, nil)
	var n atomic.Int64
	b.SetParallelism(4)
	reportCPU(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			addText(b, s, "text", benchText(int(n.Add(1))))
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "texts/s")
}

func tinyNAR(i int) ([]byte, *pathinfo.Info) {
	var buf bytes.Buffer
	w := nar.NewWriter(&buf)
	w.Regular("", false, uint64(len(fmt.Sprint(i))), strings.NewReader(fmt.Sprint(i)))
	w.Close()
	ca := storepath.ContentAddress{Method: storepath.MethodNAR, Hash: nixhash.Of(nixhash.SHA256, buf.String())}
	return buf.Bytes(), &pathinfo.Info{CA: ca, NarHash: ca.Hash, NarSize: uint64(buf.Len())}
}

func BenchmarkAddNARTiny(b *testing.B) {
	s := open(b, nil)
	reportCPU(b)
	roots := s.NewTempRoots()
	defer roots.Close()
	for i := 0; b.Loop(); i++ {
		data, info := tinyNAR(i)
		info.Path, _ = s.Dir().FromContentAddress("tiny", info.CA, storepath.References{})
		if err := s.AddNAR(context.Background(), info, bytes.NewReader(data), AddOptions{Roots: roots}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "paths/s")
}

func BenchmarkImportTiny(b *testing.B) {
	s := open(b, nil)
	reportCPU(b)
	roots := s.NewTempRoots()
	defer roots.Close()
	im := s.NewImport(AddOptions{Roots: roots})
	defer im.Close()
	for i := 0; b.Loop(); i++ {
		data, info := tinyNAR(i)
		info.Path, _ = s.Dir().FromContentAddress("tiny", info.CA, storepath.References{})
		if err := im.Add(context.Background(), info, bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
	if err := im.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "paths/s")
}

// bigFile is the archive of a large file that is made as it is read.
func bigFile(size int64) io.Reader {
	r, w := io.Pipe()
	go func() {
		nw := nar.NewWriter(w)
		chunk := make([]byte, 256<<10)
		rnd := rand.NewChaCha8([32]byte{})
		rnd.Read(chunk)
		nw.Create("", false, uint64(size))
		for left := size; left > 0; left -= int64(len(chunk)) {
			nw.Write(chunk[:min(left, int64(len(chunk)))])
		}
		w.CloseWithError(nw.Close())
	}()
	return r
}

func BenchmarkAddDumpBig(b *testing.B) {
	const size = 1 << 30
	s := open(b, nil)
	spec := DumpSpec{Name: "big", Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	b.SetBytes(size)
	for b.Loop() {
		info, err := s.AddDump(context.Background(), spec, bigFile(size), AddOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := s.DeletePath(context.Background(), info.Path); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkAddNARBig(b *testing.B) {
	const size = 1 << 30
	s := open(b, nil)
	sum := newHashWriter(nixhash.SHA256)
	io.Copy(sum, bigFile(size))
	hash, narSize := sum.finish()
	info := &pathinfo.Info{NarHash: hash, NarSize: narSize, CA: storepath.ContentAddress{Method: storepath.MethodNAR, Hash: hash}}
	info.Path, _ = s.Dir().FromContentAddress("big", info.CA, storepath.References{})
	b.SetBytes(size)
	for b.Loop() {
		if err := s.AddNAR(context.Background(), info, bigFile(size), AddOptions{}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := s.DeletePath(context.Background(), info.Path); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

const benchFiles = 30000

// treeArchive is the archive of a tree of many small files.
func treeArchive(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := nar.NewWriter(&buf)
	w.Directory("")
	content := strings.Repeat("x", 700)
	for d := range benchFiles / 100 {
		w.Directory(fmt.Sprintf("d%05d", d))
		for f := range 100 {
			w.Regular(fmt.Sprintf("f%05d", f), f%5 == 0, uint64(len(content)), strings.NewReader(content))
		}
		w.EndDirectory()
	}
	w.EndDirectory()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func BenchmarkAddDumpTree(b *testing.B) {
	s := open(b, nil)
	data := treeArchive(b)
	spec := DumpSpec{Name: "tree", Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	for b.Loop() {
		info, err := s.AddDump(context.Background(), spec, bytes.NewReader(data), AddOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := s.DeletePath(context.Background(), info.Path); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(benchFiles*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

func BenchmarkDumpTree(b *testing.B) {
	s := open(b, nil)
	spec := DumpSpec{Name: "tree", Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	info, err := s.AddDump(context.Background(), spec, bytes.NewReader(treeArchive(b)), AddOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.Dump(context.Background(), info.Path, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(benchFiles*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

func BenchmarkDumpBig(b *testing.B) {
	const size = 1 << 30
	s := open(b, nil)
	spec := DumpSpec{Name: "big", Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	info, err := s.AddDump(context.Background(), spec, bigFile(size), AddOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		if err := s.Dump(context.Background(), info.Path, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDeleteTree(b *testing.B) {
	s := open(b, nil)
	data := treeArchive(b)
	for b.Loop() {
		b.StopTimer()
		path := filepath.Join(s.RealDir(), "x")
		if err := s.Restore(context.Background(), path, bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := s.DeleteTree(context.Background(), path); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(benchFiles*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

// manyPaths registers paths with ten references each, without files.
func manyPaths(t testing.TB, s *Store, count int) []storepath.Path {
	t.Helper()
	infos := make([]*pathinfo.Info, count)
	paths := make([]storepath.Path, count)
	for i := range infos {
		hash := nixhash.Of(nixhash.SHA256, fmt.Sprint(i))
		paths[i], _ = storepath.New([20]byte(hash.Compress(20)), fmt.Sprintf("path-%d", i))
		var refs []storepath.Path
		for k := 1; k <= 10 && k <= i; k++ {
			refs = append(refs, paths[i-k])
		}
		infos[i] = &pathinfo.Info{Path: paths[i], NarHash: hash, NarSize: 100, References: storepath.SortUnique(refs)}
	}
	if err := s.Register(context.Background(), infos); err != nil {
		t.Fatal(err)
	}
	return paths
}

func BenchmarkPathInfo(b *testing.B) {
	s := open(b, nil)
	paths := manyPaths(b, s, 20000)
	ask := func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if i%len(paths) == 0 && strings.HasSuffix(b.Name(), "cold") {
				h := s.acquire()
				h.cache = newInfoCache(65536, h.db.Generation)
				h.release()
			}
			if _, err := s.PathInfo(context.Background(), paths[i%len(paths)]); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("warm", ask)
	b.Run("cold", ask)
}

func BenchmarkValidPaths(b *testing.B) {
	s := open(b, nil)
	paths := manyPaths(b, s, 20000)
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			h := s.acquire()
			h.cache = newInfoCache(65536, h.db.Generation)
			h.release()
			b.StartTimer()
			s.ValidPaths(context.Background(), paths)
		}
	})
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			s.ValidPaths(context.Background(), paths)
		}
	})
}

func BenchmarkRegister(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s := open(b, nil)
		b.StartTimer()
		manyPaths(b, s, 20000)
	}
	b.ReportMetric(20000*float64(b.N)/b.Elapsed().Seconds(), "paths/s")
}

func BenchmarkAddTempRoot(b *testing.B) {
	s := open(b, nil)
	roots := s.NewTempRoots()
	defer roots.Close()
	for i := 0; b.Loop(); i++ {
		hash := nixhash.Of(nixhash.SHA256, fmt.Sprint(i))
		p, _ := storepath.New([20]byte(hash.Compress(20)), "x")
		if err := roots.Add(context.Background(), p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuildLog(b *testing.B) {
	s := open(b, nil)
	for i := 0; b.Loop(); i++ {
		hash := nixhash.Of(nixhash.SHA256, fmt.Sprint(i))
		p, _ := storepath.New([20]byte(hash.Compress(20)), "x.drv")
		w, err := s.BuildLogs().Create(p, true)
		if err != nil {
			b.Fatal(err)
		}
		io.WriteString(w, "building\n")
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOptimise(b *testing.B) {
	s := open(b, nil)
	const files = 20000
	for b.Loop() {
		b.StopTimer()
		var buf bytes.Buffer
		w := nar.NewWriter(&buf)
		w.Directory("")
		for i := range files {
			text := fmt.Sprintf("%d %s", i/2, strings.Repeat("y", 500))
			w.Regular(fmt.Sprintf("f%06d", i), false, uint64(len(text)), strings.NewReader(text))
		}
		w.EndDirectory()
		w.Close()
		spec := DumpSpec{Name: "files", Method: storepath.MethodNAR, Algo: nixhash.SHA256}
		info, err := s.AddDump(context.Background(), spec, &buf, AddOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := s.OptimiseAll(context.Background(), OptimiseProgress{}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.DeletePath(context.Background(), info.Path)
		os.RemoveAll(s.opts.linksDir())
		os.Mkdir(s.opts.linksDir(), 0o755)
		s.Refresh(context.Background())
		b.StartTimer()
	}
	b.ReportMetric(files*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

func BenchmarkVerifyContents(b *testing.B) {
	s := open(b, nil)
	const paths, size = 500, 512 << 10
	data := make([]byte, size)
	for i := range paths {
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(data)
		spec := DumpSpec{Name: "v", Method: storepath.MethodFlat, Algo: nixhash.SHA256}
		if _, err := s.AddDump(context.Background(), spec, bytes.NewReader(data), AddOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(paths * size)
	for b.Loop() {
		if bad, err := s.Verify(context.Background(), VerifyOptions{CheckContents: true}); bad || err != nil {
			b.Fatal(bad, err)
		}
	}
}

// BenchmarkAddTextSynced adds texts one by one while nothing, or all of it, is synced in the background.
func BenchmarkAddTextSynced(b *testing.B) {
	for _, every := range []time.Duration{-1, 5 * time.Second, 500 * time.Millisecond} {
		b.Run(fmt.Sprintf("every=%v", every), func(b *testing.B) {
			s := open(b, func(o *Options) { o.SyncEvery = every })
			var longest time.Duration
			for i := 0; b.Loop(); i++ {
				start := time.Now()
				addText(b, s, "text", benchText(i))
				longest = max(longest, time.Since(start))
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "texts/s")
			b.ReportMetric(float64(longest.Microseconds())/1000, "longest-ms")
		})
	}
}

func BenchmarkRegistered(b *testing.B) {
	o := testOptions(b).withDefaults()
	y := startSyncer(&o, func() error { return nil })
	defer y.close()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			y.registered(100)
		}
	})
}

func reportCPU(b *testing.B) {
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := cpu()
	b.Cleanup(func() { b.ReportMetric(float64(cpu()-start)/float64(b.N)/1000, "cpu-us/op") })
}
