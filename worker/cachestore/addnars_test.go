package cachestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// chain is a number of paths, each of which refers to the one before.
func (w *world) chain(n int) (infos []*pathinfo.Info, archives [][]byte) {
	for i := range n {
		var refs []storepath.Path
		if i > 0 {
			refs = append(refs, infos[i-1].Path)
		}
		info, data := w.path(fmt.Sprintf("link-%d", i), fmt.Sprint(i), refs...)
		infos, archives = append(infos, info), append(archives, data)
	}
	return infos, archives
}

// source gives paths as AddNARs asks for them.
func source(infos []*pathinfo.Info, archives [][]byte) func() (*pathinfo.Info, io.Reader, error) {
	i := 0
	return func() (*pathinfo.Info, io.Reader, error) {
		if i == len(infos) {
			return nil, nil, io.EOF
		}
		i++
		return infos[i-1], bytes.NewReader(archives[i-1]), nil
	}
}

// TestManyInOrder holds the first archive up until others have arrived: no narinfo comes before that of its reference.
func TestManyInOrder(t *testing.T) {
	w := newWorld(t)
	infos, archives := w.chain(3 * uploadsAtOnce)
	var once sync.Once
	arrived := make(chan struct{})
	next := source(infos, archives)
	asked := 0
	w.files.before = func(name string) error {
		if strings.HasPrefix(name, "nar/") {
			once.Do(func() { <-arrived })
		}
		return nil
	}
	w.must(w.store.AddNARs(w.ctx, func() (*pathinfo.Info, io.Reader, error) {
		if asked++; asked == uploadsAtOnce {
			close(arrived)
		}
		return next()
	}, localstore.AddOptions{}))
	var order []string
	for _, name := range w.files.names() {
		if hash, ok := strings.CutSuffix(name, ".narinfo"); ok {
			order = append(order, hash)
		}
	}
	var want []string
	for _, info := range infos {
		want = append(want, info.Path.HashPart())
	}
	if !slices.Equal(order, want) {
		t.Errorf("order of narinfos: %v", order)
	}
}

// TestArchivesBeforeReferences holds the first narinfo up until the archives of those that refer to it are there.
func TestArchivesBeforeReferences(t *testing.T) {
	w := newWorld(t)
	infos, archives := w.chain(uploadsAtOnce)
	var archived sync.WaitGroup
	archived.Add(len(infos))
	first := infos[0].Path.HashPart() + ".narinfo"
	w.files.before = func(name string) error {
		switch {
		case strings.HasPrefix(name, "nar/"):
			archived.Done()
		case name == first:
			archived.Wait()
		}
		return nil
	}
	w.must(w.store.AddNARs(w.ctx, source(infos, archives), localstore.AddOptions{}))
	for _, info := range infos {
		if valid, err := w.store.IsValid(w.ctx, info.Path); err != nil || !valid {
			t.Errorf("%s: valid %v, %v", info.Path.Base(), valid, err)
		}
	}
	stranger := w.chainAfter("0123456789abcdfghijklmnpqrsvwxyz-stranger")
	err := w.store.AddNARs(w.ctx, source([]*pathinfo.Info{stranger.info}, [][]byte{stranger.archive}), localstore.AddOptions{})
	if err == nil || !strings.Contains(err.Error(), "is not valid") {
		t.Errorf("a reference that nobody adds: %v", err)
	}
}

// reference is a path and its archive.
type reference struct {
	info    *pathinfo.Info
	archive []byte
}

// chainAfter is a path that refers to another.
func (w *world) chainAfter(base string) reference {
	ref, err := storepath.ParseBase(base)
	w.must(err)
	info, data := w.path("refers", "to a stranger", ref)
	return reference{info, data}
}

func TestManyFail(t *testing.T) {
	w := newWorld(t)
	infos, archives := w.chain(2 * uploadsAtOnce)
	failure := errors.New("no more room")
	broken := infos[uploadsAtOnce].Path.HashPart() + ".narinfo"
	w.files.before = func(name string) error {
		if name == broken {
			return failure
		}
		return nil
	}
	if err := w.store.AddNARs(w.ctx, source(infos, archives), localstore.AddOptions{}); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	for i, info := range infos {
		valid, err := w.store.IsValid(w.ctx, info.Path)
		if err != nil || valid != (i < uploadsAtOnce) {
			t.Errorf("%d: valid %v, %v", i, valid, err)
		}
	}
	w.files.before = nil
	w.must(w.store.AddNARs(w.ctx, source(infos, archives), localstore.AddOptions{}))
	w.must(w.store.AddNARs(w.ctx, source(slices.Concat(infos, infos), slices.Concat(archives, archives)), localstore.AddOptions{Repair: true}))

	cut := [][]byte{archives[0][:50]}
	other := newWorld(t)
	if err := other.store.AddNARs(other.ctx, source(infos[:1], cut), localstore.AddOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an archive that is cut off: %v", err)
	}
}

func TestExports(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	infos, archives := w.chain(3)
	w.must(w.store.AddNARs(w.ctx, source(infos, archives), localstore.AddOptions{}))
	var stream bytes.Buffer
	for _, info := range infos {
		stream.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
		w.must(w.store.ExportPath(w.ctx, info.Path, &stream))
	}
	stream.Write(make([]byte, 8))
	paths, err := other.store.ImportPaths(w.ctx, &stream, localstore.AddOptions{})
	if err != nil || len(paths) != 3 {
		t.Fatalf("%v, %v", paths, err)
	}
	for i, p := range paths {
		if got := other.dump(p); !bytes.Equal(got, archives[i]) {
			t.Errorf("%s has other contents", p)
		}
	}
}
