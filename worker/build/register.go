package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// made is an output as it comes out of the build, on its way to the store.
type made struct {
	*output
	path    string // where it is now
	staging *localstore.Staging
	regular bool // a regular file without execute permission

	// refs are what it refers to, under the names that the builder knew; others are those that are outputs.
	refs   []storepath.Path
	others []string

	// Of the archive of what is at path.
	narHash nixhash.Hash
	narSize uint64

	info *pathinfo.Info // as registered
}

// registerMade makes store objects of what the builder has made, unless it has done so itself.
func (a *attempt) registerMade() error {
	if a.nested != nil && a.nested.submits {
		return a.registerSubmitted()
	}
	return a.register()
}

// register makes the outputs store objects (unix/build/derivation-builder.cc, registerOutputs).
func (a *attempt) register() error {
	all := make(map[string]*made, len(a.outputs))
	defer func() {
		for _, m := range all {
			if m.staging != nil {
				a.complain("remove staging directory", m.staging.Close())
			}
		}
	}()
	if err := a.examineAll(all); err != nil {
		return a.disturbed(err)
	}
	order, err := a.sortOutputs(all)
	if err != nil {
		return err
	}
	if err := a.installAll(all, order); err != nil {
		return err
	}
	infos := make(map[string]*pathinfo.Info, len(all))
	for name, m := range all {
		infos[name] = m.info
	}
	checker := &outputChecker{dir: a.dir, drvPath: a.j.drvPath, drv: &a.drv.BasicDerivation, options: a.j.options,
		outputs: infos, resolve: a.resolveRef, info: a.pathInfo}
	if err := checker.check(a.ctx); err != nil {
		return err
	}
	if a.j.mode != derivation.BuildCheck {
		if err := a.commit(infos); err != nil {
			return err
		}
	}
	a.out.status = derivation.StatusBuilt
	a.noteMade(all)
	return a.removeScratch()
}

// examineAll looks at each output that is not there already, in the order of their names.
func (a *attempt) examineAll(all map[string]*made) error {
	candidates := a.nested.visible(a.inputs)
	for _, o := range a.outputs {
		candidates = append(candidates, o.scratch)
	}
	seen := new(localstore.Inodes)
	for _, name := range slices.Sorted(maps.Keys(a.outputs)) {
		o := a.outputs[name]
		if o.intact && a.j.mode != derivation.BuildCheck {
			continue
		}
		m := &made{output: o, path: a.realOutput(o.scratch)}
		all[name] = m
		if err := a.examine(m, seen, candidates); err != nil {
			return err
		}
	}
	byPath := make(map[storepath.Path]string, len(all))
	for name, m := range all {
		byPath[m.scratch] = name
	}
	for _, m := range all {
		for _, ref := range m.refs {
			if name, ok := byPath[ref]; ok && name != m.name {
				m.others = append(m.others, name)
			}
		}
	}
	return nil
}

// examine checks who made an output, takes it out of everybody's hands, and reads it once to hash it and find its
// references. Metadata come first: a builder may have linked to files that are not its own.
func (a *attempt) examine(m *made, seen *localstore.Inodes, candidates []storepath.Path) error {
	var st unix.Stat_t
	if err := unix.Lstat(m.path, &st); err != nil {
		if err != unix.ENOENT && err != unix.ENOTDIR {
			return fmt.Errorf("getting status of '%s': %w", m.path, err)
		}
		return failuref(derivation.StatusOutputRejected, "builder for '%s' failed to produce output path for output '%s' at %s",
			a.dir.Print(a.j.drvPath), m.name, quotedPath(m.path))
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFLNK && st.Mode&(unix.S_IWGRP|unix.S_IWOTH) != 0 || a.user != nil && st.Uid != a.user.UID {
		return failuref(derivation.StatusOutputRejected, "suspicious ownership or permission on %s for output '%s'; rejecting this build output",
			quotedPath(m.path), m.name)
	}
	m.regular = kind == unix.S_IFREG && st.Mode&unix.S_IXUSR == 0
	options := localstore.CanonicaliseOptions{Seen: seen}
	if a.user != nil {
		options.Owner = &localstore.OwnerRange{First: a.user.UID, Last: a.user.UID + a.user.Count - 1}
	}
	if err := a.store.Canonicalise(a.ctx, m.path, options); err != nil {
		return a.outputError(err)
	}
	if !a.kind.IsSandboxed {
		if err := a.copyToStaging(m, nil); err != nil {
			return err
		}
	}
	var scanner *refScanner
	if !a.j.options.UnsafeDiscardReferences[m.name] {
		scanner = newRefScanner(candidates)
	}
	if err := a.read(m, scanner); err != nil {
		return err
	}
	if scanner != nil {
		m.refs = scanner.References()
	}
	return nil
}

// outputError makes an output that cannot be a store object the build's fault.
func (a *attempt) outputError(err error) error {
	if a.ctx.Err() != nil {
		return err
	}
	return &Failure{Status: derivation.StatusMiscFailure, Msg: textf("%s", plain(err.Error()))}
}

// disturbed makes an error that looks like somebody's changing an output, while the daemon was at it, the build's fault:
// its builder has let them in. A disk that fails is not.
func (a *attempt) disturbed(err error) error {
	if _, already := err.(*Failure); already || !isDisturbed(err) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return a.outputError(err)
}

// read hashes the output's archive, and has it scanned.
func (a *attempt) read(m *made, scanner *refScanner) error {
	w := &archiveHash{hash: sha256.New()}
	var out io.Writer = w
	if scanner != nil {
		out = io.MultiWriter(w, scanner)
	}
	if err := a.store.DumpFile(a.ctx, m.path, out); err != nil {
		return err
	}
	m.narHash, m.narSize = w.sum()
	return nil
}

// archiveHash hashes and counts.
type archiveHash struct {
	hash hash.Hash
	size uint64
}

func (w *archiveHash) Write(p []byte) (int, error) {
	w.size += uint64(len(p))
	return w.hash.Write(p)
}

func (w *archiveHash) sum() (nixhash.Hash, uint64) {
	return nixhash.FromSum(nixhash.SHA256, w.hash), w.size
}

// copyToStaging copies the output to new files in a directory that nobody else can enter, so that no descriptor that
// the builder may have passed on leads to it; rules, if any, are applied on the way. The original is deleted.
func (a *attempt) copyToStaging(m *made, rules map[hashPart]hashPart) error {
	staging, err := a.store.StagingDir(a.ctx)
	if err != nil {
		return err
	}
	old := m.staging
	m.staging = staging
	target := staging.Path() + "/x"
	if err := a.copyTree(m.path, target, rules, m); err != nil {
		return err
	}
	if old != nil {
		err = old.Close()
	} else {
		err = a.removeTree(m.path)
	}
	m.path = target
	return err
}

// copyTree copies by way of the archive, whose hash is noted.
func (a *attempt) copyTree(from, to string, rules map[hashPart]hashPart, m *made) error {
	r, w := io.Pipe()
	sum := &archiveHash{hash: sha256.New()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(a.dumpRewritten(from, io.MultiWriter(sum, w), rules))
	}()
	err := a.store.Restore(a.ctx, to, r)
	if err == nil {
		// What the writer does after the archive's end decides whether it was all.
		_, err = io.Copy(io.Discard, r)
	}
	r.CloseWithError(err)
	<-done
	m.narHash, m.narSize = sum.sum()
	return err
}

func (a *attempt) dumpRewritten(from string, to io.Writer, rules map[hashPart]hashPart) error {
	if len(rules) == 0 {
		return a.store.DumpFile(a.ctx, from, to)
	}
	w := newRewriter(to, rules)
	if err := a.store.DumpFile(a.ctx, from, w); err != nil {
		return err
	}
	return w.Close()
}

// sortOutputs puts outputs behind those that they refer to.
func (a *attempt) sortOutputs(all map[string]*made) ([]string, error) {
	var order []string
	state := make(map[string]int, len(all)) // 1: being visited, 2: done
	var visit func(name, parent string) error
	visit = func(name, parent string) error {
		switch state[name] {
		case 1:
			return failuref(derivation.StatusOutputRejected, "cycle detected in build of '%s' in the references of output '%s' from output '%s'",
				a.dir.Print(a.j.drvPath), name, parent)
		case 2:
			return nil
		}
		state[name] = 1
		for _, other := range all[name].others {
			if err := visit(other, name); err != nil {
				return err
			}
		}
		state[name] = 2
		order = append(order, name)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := visit(name, ""); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// commit registers what is not registered yet in one transaction, and what outputs became for clients that ask by
// derivation.
func (a *attempt) commit(infos map[string]*pathinfo.Info) error {
	var rows []*pathinfo.Info
	a.out.outputs = make(map[string]storepath.Path, len(a.outputs))
	for name, o := range a.outputs {
		if info := infos[name]; info != nil {
			a.out.outputs[name] = info.Path
			if info.CA.IsZero() {
				rows = append(rows, info)
			}
		} else {
			a.out.outputs[name] = o.known
		}
	}
	// What is complete shall not be lost because the client has just gone.
	ctx := context.WithoutCancel(a.ctx)
	if err := a.store.Register(ctx, rows); err != nil {
		return err
	}
	return a.recordRealisations(ctx, infos)
}

// removeScratch deletes what was made again of outputs that were there.
func (a *attempt) removeScratch() error {
	if a.chroot != nil {
		return nil // it goes with the rest
	}
	for _, o := range a.outputs {
		if !o.known.IsZero() && o.scratch != o.known {
			if err := a.removeTree(a.store.RealPath(o.scratch)); err != nil {
				return err
			}
		}
	}
	return nil
}
