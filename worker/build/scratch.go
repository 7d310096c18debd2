package build

import (
	"crypto/rand"
	"crypto/sha256"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// chooseScratch decides where the builder makes each output. An isolated builder does not see those that are there.
// Otherwise a path that is there cannot be written over and not be hidden either, so a fallback path takes its place, with a hash part that is replaced in what the builder is told
// and, afterwards, in what it made. An output whose path is unknown is made at a fallback path, too.
func (a *attempt) chooseScratch() error {
	a.rewrites = make(map[string]string, len(a.outputs))
	for name, o := range a.outputs {
		var err error
		switch {
		case o.known.IsZero():
			o.scratch, err = a.fallbackPath("rewrite:"+a.j.drvPath.Base()+":name:"+name, storepath.OutputPathName(a.drv.Name, name))
		case o.present && !a.isolated:
			o.scratch, err = a.fallbackPath("rewrite:"+a.j.drvPath.Base()+":"+o.known.Base(), o.known.Name())
		default:
			o.scratch = o.known
		}
		if err != nil {
			return err
		}
		a.rewrites[derivation.HashPlaceholder(name)] = a.dir.Print(o.scratch)
		if o.scratch == o.known || a.isolated {
			continue
		}
		if err := a.removeTree(a.store.RealPath(o.scratch)); err != nil {
			return err
		}
		if !o.known.IsZero() {
			a.rewrites[o.known.HashPart()] = o.scratch.HashPart()
		}
	}
	return nil
}

// fallbackPath is a path of a type that no other path has, so that it is never somebody else's
// (unix/build/derivation-builder.cc, makeFallbackPath).
func (a *attempt) fallbackPath(kind, name string) (storepath.Path, error) {
	zero, err := nixhash.New(nixhash.SHA256, make([]byte, sha256.Size))
	if err != nil {
		return storepath.Path{}, err
	}
	return a.dir.MakePath(kind, zero, name)
}

// randomPath is for outputs that are new each time.
func randomPath(name string) (storepath.Path, error) {
	var digest [20]byte
	rand.Read(digest[:])
	return storepath.New(digest, name)
}
