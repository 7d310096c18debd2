package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"nixdaemon/protocol/client"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/wire"
)

// upkeep are the rows of verifying and deduplicating a store.
func upkeep() []workload {
	deduplicating := func(c *config) { c.optimise = true }
	return []workload{
		{name: "verify contents, 1 GiB in 2,000 paths", unit: "MB/s", prepare: sized(2000, 1<<19), run: verifyContents, read: megabytes},
		{name: "verify existence of 20,000 paths", unit: "/s", prepare: sized(20000, 8), run: verifyExistence},
		{name: "optimise 20,000 files, half duplicates", unit: "files/s", prepare: halfDuplicates, run: optimise},
		{name: "optimise them again", unit: "files/s", prepare: optimised, run: optimise},
		{name: "add 4,000 files of 16 KB one by one", unit: "/s", prepare: singles, run: importSingly},
		{name: "the same, deduplicating", unit: "/s", configure: deduplicating, prepare: singles, run: importSingly},
		{name: "add a tree of 30,000 different files", unit: "files/s", prepare: prepareDifferent, run: addTree},
		{name: "the same tree, deduplicating", unit: "files/s", configure: deduplicating, prepare: prepareDifferent, run: addTree},
	}
}

// numbered is the archive of one file of noise that begins with a number, of a size that needs no padding.
func (b *bench) numbered(number, size int) archive {
	var head, tail bytes.Buffer
	w := wire.NewWriter(&head)
	for _, tag := range []string{nar.Magic, "(", "type", "regular", "contents"} {
		w.String(tag)
	}
	w.Uint64(uint64(size))
	w.Uint64(uint64(number))
	end := wire.NewWriter(&tail)
	end.String(")")
	if err := errors.Join(w.Flush(), end.Flush()); err != nil {
		panic(err) // buffers do not fail
	}
	return func() io.Reader {
		return io.MultiReader(bytes.NewReader(head.Bytes()), b.noise(int64(size-8)), bytes.NewReader(tail.Bytes()))
	}
}

// filled is what a store was filled with.
type filled struct{ paths, bytes int }

// sized fills the store with so many files of that size.
func sized(paths, size int) func(*bench) error {
	return func(b *bench) error {
		n := b.n(paths)
		if err := b.fillWith(n, func(i int) archive { return b.numbered(i, size) }); err != nil {
			return err
		}
		b.state = &filled{n, n * size}
		return nil
	}
}

// fillWith adds so many paths, some hundred at a time.
func (b *bench) fillWith(n int, make func(i int) archive) error {
	c := b.pool(1, 1)
	defer c.Close()
	const batch = 500
	for first := 0; first < n; first += batch {
		var all []client.Addition
		for i := first; i < min(first+batch, n); i++ {
			a, err := b.addition(fmt.Sprintf("filled-%d", i), make(i))
			if err != nil {
				return err
			}
			all = append(all, a)
		}
		if err := c.AddMultiple(b.ctx, false, true, all); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) addition(name string, data archive) (client.Addition, error) {
	_, info, err := contents(b, name, data())
	return client.Addition{Info: info, NAR: data()}, err
}

func verify(b *bench, checkContents bool) error {
	c := b.pool(1, 1)
	defer c.Close()
	bad, err := c.Verify(b.ctx, checkContents, false)
	if err == nil && bad {
		err = errors.New("the store does not verify")
	}
	return err
}

func verifyContents(b *bench) (float64, error) {
	return float64(b.state.(*filled).bytes), verify(b, true)
}

func verifyExistence(b *bench) (float64, error) {
	return float64(b.state.(*filled).paths), verify(b, false)
}

// filesPerPath is how many files halfDuplicates puts into one path.
const filesPerPath = 20

// halfDuplicates fills the store with files of which every other one equals the one before it.
func halfDuplicates(b *bench) error {
	paths := b.n(20000) / filesPerPath
	err := b.fillWith(paths, func(i int) archive {
		return b.directory(filesPerPath, func(j int) int { return (i*filesPerPath + j) / 2 })
	})
	b.state = &filled{paths: paths * filesPerPath}
	return err
}

// directory is the archive of a directory of small files that hold the given numbers.
func (b *bench) directory(files int, number func(j int) int) archive {
	var all bytes.Buffer
	w := nar.NewWriter(&all)
	err := w.Directory("")
	for j := range files {
		text := strings.Repeat(fmt.Sprintf("%08d", number(j)), 125)
		err = errors.Join(err, w.Regular(fmt.Sprintf("file-%02d", j), false, uint64(len(text)), strings.NewReader(text)))
	}
	if err = errors.Join(err, w.EndDirectory(), w.Close()); err != nil {
		panic(err) // buffers do not fail
	}
	return func() io.Reader { return bytes.NewReader(all.Bytes()) }
}

func optimised(b *bench) error {
	if err := halfDuplicates(b); err != nil {
		return err
	}
	_, err := optimise(b)
	return err
}

func optimise(b *bench) (float64, error) {
	c := b.pool(1, 1)
	defer c.Close()
	return float64(b.state.(*filled).paths), c.Optimise(b.ctx)
}

// singles makes what importSingly sends: no file is like another.
func singles(b *bench) error {
	var all []client.Addition
	for i := range b.n(4000) {
		a, err := b.addition(fmt.Sprintf("single-%d", i), b.numbered(i, 16<<10))
		if err != nil {
			return err
		}
		all = append(all, a)
	}
	b.state = all
	return nil
}

// prepareDifferent makes a tree like that of prepareTree, in which no file is like another.
func prepareDifferent(b *bench) error { return prepare(b, b.differentTree) }

func (b *bench) differentTree() (archive, error) {
	var all bytes.Buffer
	w := nar.NewWriter(&all)
	err := w.Directory("")
	for i := range b.treeFiles() / 100 {
		err = errors.Join(err, w.Directory(fmt.Sprintf("folder-%05d", i)))
		for j := range 100 {
			text := strings.Repeat(fmt.Sprintf("%08d", i*100+j), 125)
			err = errors.Join(err, w.Regular(fmt.Sprintf("file-%03d", j), j%10 == 0, uint64(len(text)), strings.NewReader(text)))
		}
		err = errors.Join(err, w.EndDirectory())
	}
	err = errors.Join(err, w.EndDirectory(), w.Close())
	return func() io.Reader { return bytes.NewReader(all.Bytes()) }, err
}
