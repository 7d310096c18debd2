package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// noise is a stream of bytes that do not repeat soon, cheap to read.
type noise struct {
	block []byte
	left  int64
}

// noise gives size bytes.
func (b *bench) noise(size int64) *noise {
	if b.block == nil {
		b.block = make([]byte, 64<<10)
		x := uint64(88172645463325252)
		for i := range b.block {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			b.block[i] = byte(x)
		}
	}
	return &noise{block: b.block, left: size}
}

// Read fills p.
func (n *noise) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > n.left {
		p = p[:n.left]
	}
	copied := copy(p, n.block)
	n.left -= int64(copied)
	return copied, nil
}

// archive gives a NAR from its start. It is made before the clock runs, for
// the daemon that is timed shares the machine with us.
type archive func() io.Reader

func (b *bench) fileSize() int64 { return int64(b.n(1 << 30)) }

// addContents adds an archive whose hash is computed beforehand, as clients
// do that copy between stores.
func addContents(b *bench, name string, data archive) error {
	p, info, err := contents(b, name, data())
	if err != nil {
		return err
	}
	b.state = p
	c := b.pool(1, 1)
	defer c.Close()
	return c.AddNAR(b.ctx, protocol.AddToStoreNarRequest{Info: info, DontCheckSigs: true}, data())
}

func contents(b *bench, name string, data io.Reader) (storepath.Path, *pathinfo.Info, error) {
	p, err := storepath.Dir(b.storeDir()).MakePath("output:out", nixhash.Of(nixhash.SHA256, name), name)
	if err != nil {
		return p, nil, err
	}
	running := nixhash.SHA256.New()
	size, err := io.Copy(running, data)
	return p, &pathinfo.Info{Path: p, NarHash: nixhash.FromSum(nixhash.SHA256, running), NarSize: uint64(size)}, err
}

// bigFile is a file of noise, which is not held in memory.
func (b *bench) bigFile() (archive, error) {
	size := b.fileSize() &^ 7 // no padding
	var head, tail bytes.Buffer
	w := wire.NewWriter(&head)
	for _, tag := range []string{nar.Magic, "(", "type", "regular", "contents"} {
		w.String(tag)
	}
	w.Uint64(uint64(size))
	end := wire.NewWriter(&tail)
	end.String(")")
	return func() io.Reader {
		return io.MultiReader(bytes.NewReader(head.Bytes()), b.noise(size), bytes.NewReader(tail.Bytes()))
	}, errors.Join(w.Flush(), end.Flush())
}

func prepareFile(b *bench) error { return prepare(b, b.bigFile) }

func prepareTree(b *bench) error { return prepare(b, b.tree) }

func prepare(b *bench, make func() (archive, error)) error {
	data, err := make()
	b.state = data
	return err
}

// add adds what was prepared through AddToStore, where the daemon computes
// all hashes.
func add(b *bench, name string) error {
	c := b.pool(1, 1)
	defer c.Close()
	data := b.state.(archive)()
	_, err := c.AddToStore(b.ctx, protocol.AddToStoreRequest{Name: name, MethodAlgo: "fixed:r:sha256"}, data)
	return err
}

func addFile(b *bench) (float64, error) { return float64(b.fileSize()), add(b, "big") }

func addTree(b *bench) (float64, error) { return float64(b.treeFiles()), add(b, "tree") }

// keep adds what is then read back.
func keep(b *bench, name string, make func() (archive, error)) error {
	data, err := make()
	if err != nil {
		return err
	}
	return addContents(b, name, data)
}

func keepFile(b *bench) error { return keep(b, "big", b.bigFile) }

func keepTree(b *bench) error { return keep(b, "tree", b.tree) }

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

// tree is the archive of the tree, about 40 MB.
func (b *bench) tree() (archive, error) {
	var all bytes.Buffer
	w := nar.NewWriter(&all)
	err := errors.Join(b.writeTree(w), w.Close())
	return func() io.Reader { return bytes.NewReader(all.Bytes()) }, err
}

func (b *bench) writeTree(w *nar.Writer) error {
	if err := w.Directory(""); err != nil {
		return err
	}
	for i := range b.treeFiles() / 100 {
		if err := w.Directory(fmt.Sprintf("folder-%05d", i)); err != nil {
			return err
		}
		for j := range 100 {
			if err := w.Regular(fmt.Sprintf("file-%03d", j), j%10 == 0, 1000, b.noise(1000)); err != nil {
				return err
			}
		}
		if err := w.EndDirectory(); err != nil {
			return err
		}
	}
	return w.EndDirectory()
}

func readTree(b *bench) (float64, error) {
	_, err := dump(b)
	return float64(b.treeFiles()), err
}
