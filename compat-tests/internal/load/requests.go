package load

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// common is how many contents there are that files have in common, for optimising.
const common = 50

// contents makes those of a file. They do not compress to zeros, so that lost blocks show.
func (w *worker) contents(size int) []byte {
	seed := uint64(w.random.IntN(common))
	if w.random.IntN(2) == 0 {
		seed = w.random.Uint64()
	} else {
		size = int(seed+1) * 300
	}
	data := make([]byte, size)
	for i := range data {
		seed = seed*6364136223846793005 + 1442695040888963407
		data[i] = byte(seed >> 56)
	}
	return data
}

func (w *worker) tree() ([]byte, error) {
	var all bytes.Buffer
	n := nar.NewWriter(&all)
	if err := n.Directory(""); err != nil {
		return nil, err
	}
	for i := range 1 + w.random.IntN(6) {
		data := w.contents(w.random.IntN(40_000))
		if err := n.Regular(fmt.Sprintf("file-%d", i), i%2 == 0, uint64(len(data)), bytes.NewReader(data)); err != nil {
			return nil, err
		}
	}
	if err := n.Symlink("link", "file-0"); err != nil {
		return nil, err
	}
	if err := n.EndDirectory(); err != nil {
		return nil, err
	}
	err := n.Close()
	return all.Bytes(), err
}

func (w *worker) addTree(ctx context.Context) error {
	data, err := w.tree()
	if err != nil {
		return err
	}
	return w.addNAR(ctx, "tree", data)
}

func (w *worker) addLarge(ctx context.Context) error {
	var all bytes.Buffer
	n := nar.NewWriter(&all)
	data := w.contents(200_000 + w.random.IntN(800_000))
	if err := n.Regular("", false, uint64(len(data)), bytes.NewReader(data)); err != nil {
		return err
	}
	if err := n.Close(); err != nil {
		return err
	}
	return w.addNAR(ctx, "large", all.Bytes())
}

// addNAR adds an input-addressed path, now and then with a reference.
func (w *worker) addNAR(ctx context.Context, kind string, data []byte) error {
	name := w.name(kind)
	p, err := storepath.Dir(w.opts.StoreDir).MakePath("output:out", nixhash.Of(nixhash.SHA256, name), name)
	if err != nil {
		return err
	}
	info := &pathinfo.Info{Path: p, NarHash: nixhash.Of(nixhash.SHA256, string(data)), NarSize: uint64(len(data))}
	if w.random.IntN(3) == 0 {
		if dep := w.pick(w.random); dep != nil {
			info.References = []storepath.Path{dep.Path}
		}
	}
	w.expect(p, info.NarHash)
	root, err := w.root(p)
	if err != nil {
		return err
	}
	err = w.client.AddNAR(ctx, protocol.AddToStoreNarRequest{Info: info, DontCheckSigs: true}, bytes.NewReader(data))
	if err == nil {
		w.acknowledged(p, info.NarHash, root)
	}
	return err
}

func (w *worker) addText(ctx context.Context) error {
	name := w.name("text")
	text := strings.Repeat(name+"\n", 1+w.random.IntN(300))
	ca := storepath.ContentAddress{Method: storepath.MethodText, Hash: nixhash.Of(nixhash.SHA256, text)}
	known, err := pathinfo.FromCA(storepath.Dir(w.opts.StoreDir), name, ca, storepath.References{})
	if err != nil {
		return err
	}
	root, err := w.root(known.Path)
	if err != nil {
		return err
	}
	info, err := w.client.AddToStore(ctx, protocol.AddToStoreRequest{Name: name, MethodAlgo: "text:sha256"}, strings.NewReader(text))
	if err == nil {
		w.acknowledged(info.Path, info.NarHash, root)
	}
	return err
}

// build adds a derivation and builds it.
func (w *worker) build(ctx context.Context) error {
	name := w.name("built")
	script := w.opts.Builds[w.random.IntN(len(w.opts.Builds))]
	d := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{
		Name: name, Platform: "x86_64-linux", Builder: "/bin/sh", Args: []string{"-ec", script},
		Env:     map[string]string{"name": name, "out": "", "system": "x86_64-linux", "builder": "/bin/sh", "PATH": "/bin:/usr/bin"},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}},
	}}
	if dep := w.pick(w.random); dep != nil {
		d.InputSrcs = []storepath.Path{dep.Path}
		d.Env["dep"] = storepath.Dir(w.opts.StoreDir).Print(dep.Path)
	}
	dir := storepath.Dir(w.opts.StoreDir)
	h := &derivation.Hasher{Dir: dir, Memo: w.memo}
	if err := h.FillOutputPaths(ctx, d); err != nil {
		return err
	}
	text, err := d.ATerm(dir)
	if err != nil {
		return err
	}
	out, err := dir.Parse(d.Env["out"])
	if err != nil {
		return err
	}
	root, err := w.root(out)
	if err != nil {
		return err
	}
	drv, err := w.client.AddToStore(ctx, protocol.AddToStoreRequest{
		Name: name + ".drv", MethodAlgo: "text:sha256", References: d.References(),
	}, strings.NewReader(text))
	if err != nil {
		return err
	}
	want := derivation.DerivedPath{Drv: &derivation.SingleDerivedPath{Path: drv.Path}, Outputs: derivation.OutputsSpec{All: true}}
	if err := w.client.BuildPaths(ctx, []derivation.DerivedPath{want}, derivation.BuildNormal); err != nil {
		return err
	}
	info, err := w.client.PathInfo(ctx, out)
	if err != nil {
		return err
	}
	if info == nil {
		return &protocol.Error{Message: fmt.Sprintf("output '%s' is not valid right after it was built", d.Env["out"])}
	}
	w.acknowledged(out, info.NarHash, root)
	return nil
}

// ask looks whether a promise is kept.
func (w *worker) ask(ctx context.Context) error {
	p := w.pick(w.random)
	if p == nil {
		return nil
	}
	defer w.unpick(p)
	info, err := w.client.PathInfo(ctx, p.Path)
	if err != nil {
		return err
	}
	if info == nil || info.NarHash != p.NarHash {
		return &protocol.Error{Message: fmt.Sprintf("'%s' was acknowledged and is not what it was: %v", p.Path, info)}
	}
	return nil
}

// repair adds a kept tree again, in place of itself.
func (w *worker) repair(ctx context.Context) error {
	p := w.pick(w.random)
	if p == nil {
		return nil
	}
	defer w.unpick(p)
	var data bytes.Buffer
	info, err := w.client.PathInfo(ctx, p.Path)
	if err == nil && info == nil {
		err = &protocol.Error{Message: fmt.Sprintf("'%s' was acknowledged and is not valid", p.Path)}
	}
	if err != nil {
		return err
	}
	if err := w.client.Dump(ctx, p.Path, &data); err != nil {
		return err
	}
	if got := nixhash.Of(nixhash.SHA256, data.String()); got != p.NarHash {
		return &protocol.Error{Message: fmt.Sprintf("'%s' has hash %s, was added with %s", p.Path, got, p.NarHash)}
	}
	return w.client.AddNAR(ctx, protocol.AddToStoreNarRequest{Info: info, DontCheckSigs: true, Repair: true}, &data)
}

// collect deletes all that nobody keeps, or some of it.
func (w *worker) collect(ctx context.Context) error {
	most := uint64(math.MaxUint64)
	if w.random.IntN(2) == 0 {
		most = uint64(w.random.IntN(1 << 20))
	}
	_, err := w.client.CollectGarbage(ctx, protocol.GCRequest{Action: protocol.GCDeleteDead, WholeStore: true, MaxFreed: most})
	return err
}

// delete deletes one path that nobody keeps, unless somebody happens to have it as a temporary root.
func (w *worker) delete(ctx context.Context) error {
	if len(w.loose) == 0 {
		return nil
	}
	i := w.random.IntN(len(w.loose))
	p := w.loose[i]
	w.loose = append(w.loose[:i], w.loose[i+1:]...)
	if valid, err := w.client.IsValid(ctx, p); err != nil || !valid {
		return err
	}
	_, err := w.client.CollectGarbage(ctx, protocol.GCRequest{Action: protocol.GCDeleteSpecific, Paths: []storepath.Path{p}, MaxFreed: math.MaxUint64})
	if err != nil && strings.Contains(err.Error(), "annot delete path") {
		return nil
	}
	return err
}
