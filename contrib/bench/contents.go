package main

import (
	"fmt"
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// noise is a stream of bytes that do not repeat soon, cheap to make.
type noise struct {
	block [64 << 10]byte
	left  int64
}

func newNoise(size int64) *noise {
	n := &noise{left: size}
	x := uint64(88172645463325252)
	for i := range n.block {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		n.block[i] = byte(x)
	}
	return n
}

// Read fills p.
func (n *noise) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > n.left {
		p = p[:n.left]
	}
	copied := copy(p, n.block[:])
	n.left -= int64(copied)
	return copied, nil
}

// archive writes a NAR into a pipe.
func archive(write func(*nar.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		out := nar.NewWriter(w)
		err := write(out)
		if err == nil {
			err = out.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

func (b *bench) fileSize() int64 { return int64(b.n(1 << 30)) }

// addContents adds an archive whose hash is computed beforehand, as clients
// do that copy between stores.
func addContents(b *bench, name string, write func(*nar.Writer) error) error {
	p, info, err := contents(b, name, write)
	if err != nil {
		return err
	}
	b.state = p
	c := b.pool(1, 1)
	defer c.Close()
	data := archive(write)
	defer data.Close()
	return c.AddNAR(b.ctx, protocol.AddToStoreNarRequest{Info: info, DontCheckSigs: true}, data)
}

func contents(b *bench, name string, write func(*nar.Writer) error) (storepath.Path, *pathinfo.Info, error) {
	p, err := storepath.Dir(b.storeDir()).MakePath("output:out", nixhash.Of(nixhash.SHA256, name), name)
	if err != nil {
		return p, nil, err
	}
	data := archive(write)
	defer data.Close()
	running := nixhash.SHA256.New()
	size, err := io.Copy(running, data)
	return p, &pathinfo.Info{Path: p, NarHash: nixhash.FromSum(nixhash.SHA256, running), NarSize: uint64(size)}, err
}

func (b *bench) bigFile(w *nar.Writer) error {
	return w.Regular("", false, uint64(b.fileSize()), newNoise(b.fileSize()))
}

// addFile adds the file through AddToStore, where the daemon computes all
// hashes.
func addFile(b *bench) (float64, error) {
	c := b.pool(1, 1)
	defer c.Close()
	data := archive(b.bigFile)
	defer data.Close()
	_, err := c.AddToStore(b.ctx, protocol.AddToStoreRequest{Name: "big", MethodAlgo: "fixed:r:sha256"}, data)
	return float64(b.fileSize()), err
}

func keepFile(b *bench) error { return addContents(b, "big", b.bigFile) }

// dump reads the path that was kept.
func dump(b *bench) (int64, error) {
	c := b.pool(1, 1)
	defer c.Close()
	var count counter
	err := c.Dump(b.ctx, b.state.(storepath.Path), &count)
	return int64(count), err
}

type counter int64

// Write counts.
func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func readBack(b *bench) (float64, error) {
	n, err := dump(b)
	return float64(n), err
}

// treeFiles is how many files the tree has, in folders of a hundred.
func (b *bench) treeFiles() int { return b.n(300) * 100 }

func (b *bench) tree(w *nar.Writer) error {
	if err := w.Directory(""); err != nil {
		return err
	}
	for i := range b.treeFiles() / 100 {
		if err := w.Directory(fmt.Sprintf("folder-%05d", i)); err != nil {
			return err
		}
		for j := range 100 {
			if err := w.Regular(fmt.Sprintf("file-%03d", j), j%10 == 0, 1000, newNoise(1000)); err != nil {
				return err
			}
		}
		if err := w.EndDirectory(); err != nil {
			return err
		}
	}
	return w.EndDirectory()
}

func addTree(b *bench) (float64, error) {
	c := b.pool(1, 1)
	defer c.Close()
	data := archive(b.tree)
	defer data.Close()
	_, err := c.AddToStore(b.ctx, protocol.AddToStoreRequest{Name: "tree", MethodAlgo: "fixed:r:sha256"}, data)
	return float64(b.treeFiles()), err
}

func keepTree(b *bench) error { return addContents(b, "tree", b.tree) }

func readTree(b *bench) (float64, error) {
	_, err := dump(b)
	return float64(b.treeFiles()), err
}
