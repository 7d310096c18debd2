package build

import (
	"context"
	"errors"
	"slices"

	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// installAll gives the outputs their final names and contents, those first that others refer to.
func (a *attempt) installAll(all map[string]*made, order []string) error {
	keys, err := readSecretKeys(a.set.SecretKeyFiles)
	if err != nil {
		return err
	}
	// What is called differently in the end than while it was built.
	final := make(map[hashPart]hashPart)
	for name, o := range a.outputs {
		if all[name] == nil && o.scratch != o.known {
			final[hashPartOf(o.scratch)] = hashPartOf(o.known)
		}
	}
	for _, name := range order {
		m := all[name]
		if err := a.address(m, final); err != nil {
			return a.disturbed(err)
		}
		if m.scratch != m.info.Path {
			final[hashPartOf(m.scratch)] = hashPartOf(m.info.Path)
		}
		if a.j.mode == derivation.BuildCheck {
			if err := a.compare(m, keys); err != nil {
				return err
			}
			continue
		}
		if err := a.place(m, keys); err != nil {
			return err
		}
	}
	return nil
}

// address finds the output's path and metadata.
func (a *attempt) address(m *made, final map[hashPart]hashPart) error {
	o := a.drv.Outputs[m.name]
	switch o.Kind {
	case derivation.InputAddressed:
		return a.addressByInput(m, final)
	case derivation.FixedCA:
		return a.addressByContent(m, o.CA.Method, o.CA.Hash.Algo(), final)
	case derivation.FloatingCA, derivation.Impure:
		return a.addressByContent(m, o.Method, o.Algo, final)
	}
	return errorf("derivation '%s' was built without being resolved", a.dir.Print(a.j.drvPath))
}

func (a *attempt) addressByInput(m *made, final map[hashPart]hashPart) error {
	if m.scratch != m.known {
		final[hashPartOf(m.scratch)] = hashPartOf(m.known)
	}
	if err := a.rewrite(m, final); err != nil {
		return err
	}
	refs, self := a.renamed(m, final)
	if self {
		refs = append(refs, m.known)
	}
	m.info = &pathinfo.Info{Path: m.known, NarHash: m.narHash, NarSize: m.narSize, References: storepath.SortUnique(refs)}
	return nil
}

// addressByContent hashes the contents with the output's own hash part left out, since that follows from the hash.
func (a *attempt) addressByContent(m *made, method storepath.Method, algo nixhash.Algo, final map[hashPart]hashPart) error {
	if (method == storepath.MethodFlat || method == storepath.MethodText) && !m.regular {
		return failuref(derivation.StatusOutputRejected, "output path %s should be a non-executable regular file "+
			"since recursive hashing is not enabled (one of outputHashMode={flat,text} is true)", quotedPath(m.path))
	}
	if err := a.rewrite(m, final); err != nil {
		return err
	}
	refs, self := a.renamed(m, final)
	digest := m.narHash
	if method != storepath.MethodNAR || algo != nixhash.SHA256 || self || a.j.options.UnsafeDiscardReferences[m.name] {
		var err error
		if digest, err = a.store.HashContents(a.ctx, m.path, method, algo, m.scratch.HashPart()); err != nil {
			return err
		}
	}
	info, err := pathinfo.FromCA(a.dir, storepath.OutputPathName(a.drv.Name, m.name),
		storepath.ContentAddress{Method: method, Hash: digest}, storepath.References{Others: refs, Self: self})
	if err != nil {
		return err
	}
	if m.scratch != info.Path && (self || a.j.options.UnsafeDiscardReferences[m.name]) {
		if err := a.copyToStaging(m, map[hashPart]hashPart{hashPartOf(m.scratch): hashPartOf(info.Path)}); err != nil {
			return err
		}
	}
	info.NarHash, info.NarSize = m.narHash, m.narSize
	m.info = info
	return nil
}

// rewrite replaces hash parts in the contents, if there are any to replace: the scan has found them all.
func (a *attempt) rewrite(m *made, final map[hashPart]hashPart) error {
	needed := a.j.options.UnsafeDiscardReferences[m.name]
	for _, ref := range m.refs {
		_, renamed := final[hashPartOf(ref)]
		needed = needed || renamed
	}
	if !needed || len(final) == 0 {
		return nil
	}
	return a.copyToStaging(m, final)
}

// renamed are the references under their final names, a sorted set without the output itself.
func (a *attempt) renamed(m *made, final map[hashPart]hashPart) (refs []storepath.Path, self bool) {
	for _, ref := range m.refs {
		if ref == m.scratch {
			self = true
			continue
		}
		if to, ok := final[hashPartOf(ref)]; ok {
			// The name stays, so this is well-formed.
			if renamed, err := storepath.ParseBase(string(to[:]) + "-" + ref.Name()); err == nil {
				ref = renamed
			}
		}
		refs = append(refs, ref)
	}
	return storepath.SortUnique(refs), self
}

// place moves an output to its path and signs its metadata. Content-addressed ones are registered at once: a result
// that is not what was asked for is still good under its own name, and others may have made it meanwhile.
func (a *attempt) place(m *made, keys []pathinfo.SecretKey) error {
	m.info.Deriver, m.info.Ultimate = a.j.drvPath, true
	if err := signInfo(a.dir, m.info, keys); err != nil {
		return err
	}
	static, err := a.drv.Outputs[m.name].OutputPath(a.dir, a.drv.Name, m.name)
	if err != nil {
		return err
	}
	if static != m.info.Path {
		if err := a.s.addRoot(a.ctx, a.j, m.info.Path); err != nil {
			return err
		}
		held, err := a.lockFinal(m)
		if errors.Is(err, pathlock.ErrLocked) {
			return nil
		}
		if err != nil {
			return err
		}
		defer func() {
			held.SetDeletion(true)
			a.complain("unlock output", held.Unlock())
		}()
	}
	if err := a.move(m); err != nil {
		return a.disturbed(err)
	}
	if m.info.CA.IsZero() {
		return a.optimise(m)
	}
	if err := a.optimise(m); err != nil {
		return err
	}
	return a.store.Register(context.WithoutCancel(a.ctx), []*pathinfo.Info{m.info})
}

// lockFinal locks a path that was not known before the build. If the wrong result of a fixed-output derivation is
// just being made by somebody else it is theirs: waiting could be a deadlock, since they may wait for us
// (upstream from 2.35 on).
func (a *attempt) lockFinal(m *made) (*pathlock.Held, error) {
	return a.store.LockPaths(a.ctx, []string{a.store.RealPath(m.info.Path)}, pathlock.Options{TryOnly: a.kind.IsFixed})
}

func (a *attempt) move(m *made) error {
	dest := a.store.RealPath(m.info.Path)
	if m.path == dest {
		return nil
	}
	if a.j.mode == derivation.BuildRepair {
		return a.replace(m, dest)
	}
	valid, err := a.store.IsValid(a.ctx, m.info.Path)
	if err != nil {
		return err
	}
	if valid {
		return a.removeTree(m.path)
	}
	if err := a.removeTree(dest); err != nil {
		return err
	}
	return a.store.Move(m.path, dest)
}

// replace puts a good output in the place of a damaged one, which may be in use until then.
func (a *attempt) replace(m *made, dest string) error {
	swapped, err := a.store.Replace(m.path, dest)
	if err != nil || !swapped {
		return err
	}
	return a.removeTree(m.path)
}

func (a *attempt) optimise(m *made) error {
	if !a.set.AutoOptimiseStore {
		return nil
	}
	return a.store.Optimise(a.ctx, m.info.Path)
}

// recordRealisations notes what the outputs became, when content-addressed derivations are on.
func (a *attempt) recordRealisations(ctx context.Context, infos map[string]*pathinfo.Info) error {
	if !a.set.ExperimentalFeatures.Enabled(settings.CADerivations) || a.kind.IsImpure {
		return nil
	}
	ids, err := a.s.outputIDs(ctx, a.j.drvPath, a.drv)
	if err != nil {
		return err
	}
	keys, err := readSecretKeys(a.set.SecretKeyFiles)
	if err != nil {
		return err
	}
	for _, name := range sortedNames(infos) {
		real := &pathinfo.Realisation{ID: ids(name), OutPath: infos[name].Path}
		signRealisation(real, keys)
		if err := a.store.RegisterRealisation(ctx, real); err != nil {
			return err
		}
	}
	return nil
}

func sortedNames(infos map[string]*pathinfo.Info) []string {
	names := make([]string, 0, len(infos))
	for name := range infos {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
