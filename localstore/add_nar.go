package localstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// AddNAR adds a path whose metadata is given with the archive of its contents. The archive must be what the metadata
// says: hash, size and content address. Exactly one archive is consumed from r, also when the path is valid already
// or refused; unless the archive is malformed or r fails, which leaves the position undefined, or o says to leave it.
func (s *Store) AddNAR(ctx context.Context, info *pathinfo.Info, r io.Reader, o AddOptions) error {
	r = ctxReader(ctx, r)
	h := s.acquire()
	defer h.release()
	a, err := s.admit(ctx, h, info, &o)
	if a == nil || err != nil {
		return joinErrors(err, o.skip(r))
	}
	consumed := false
	err = a.importNAR(ctx, info, r, &consumed)
	a.end(err)
	if !consumed {
		err = joinErrors(err, o.skip(r))
	}
	return err
}

// skip reads over an archive that is not needed, for the sake of what follows it.
func (o *AddOptions) skip(r io.Reader) error {
	if o.LeaveUnread {
		return nil
	}
	return nar.Skip(r)
}

// joinErrors keeps a single error as it is: its text is for clients.
func joinErrors(first, second error) error {
	if first == nil {
		return second
	}
	return first
}

func (s *Store) admit(ctx context.Context, h *handle, info *pathinfo.Info, o *AddOptions) (*adding, error) {
	if err := s.checkTrust(info, o); err != nil {
		return nil, err
	}
	return s.begin(ctx, h, info.Path, o)
}

func (s *Store) checkTrust(info *pathinfo.Info, o *AddOptions) error {
	if o.RequireSigs && !o.DontCheckSigs && o.TrustedKeys.CountValid(s.opts.StoreDir, info) == 0 {
		return fmt.Errorf("cannot add path '%s' because it lacks a signature by a trusted key", s.opts.StoreDir.Print(info.Path))
	}
	return nil
}

func (a *adding) importNAR(ctx context.Context, info *pathinfo.Info, r io.Reader, consumed *bool) (err error) {
	copied := *info
	if !a.opts.Repair {
		*consumed = true
		if err := a.restore(ctx, info, r); err != nil {
			return err
		}
		return a.commit(ctx, &copied, known{})
	}
	// What is valid may be in use: it stays until the new tree is whole.
	st, err := a.s.StagingDir(ctx)
	if err != nil {
		return err
	}
	defer func() { err = joinErrors(err, st.Close()) }()
	*consumed = true
	if err := a.restoreTo(ctx, st.dir, stagedName, info, r); err != nil {
		return err
	}
	if err := a.replace(st, stagedName); err != nil {
		return err
	}
	return a.commit(ctx, &copied, known{})
}

func (s *Store) checkContents(ctx context.Context, dir *fstree.Dir, name string, info *pathinfo.Info, hash nixhash.Hash, size uint64) error {
	path := s.opts.StoreDir.Print(info.Path)
	if hash != info.NarHash {
		return fmt.Errorf("hash mismatch importing path '%s';\n  specified: %s\n  got:       %s", path, info.NarHash, hash)
	}
	if size != info.NarSize {
		return fmt.Errorf("size mismatch importing path '%s';\n  specified: %d\n  got:       %d", path, info.NarSize, size)
	}
	if info.CA.IsZero() || info.CA == (storepath.ContentAddress{Method: storepath.MethodNAR, Hash: hash}) {
		return nil
	}
	got, err := s.HashContents(ctx, dir.Path()+"/"+name, info.CA.Method, info.CA.Hash.Algo(), info.Path.HashPart())
	if err != nil {
		return err
	}
	if got != info.CA.Hash {
		return fmt.Errorf("ca hash mismatch importing path '%s';\n  specified: %s\n  got:       %s", path, info.CA.Hash, got)
	}
	return nil
}

// HashContents hashes a tree on disk as a content address of that method does, with every occurrence of selfHashPart
// replaced by zeros; "" replaces nothing.
func (s *Store) HashContents(ctx context.Context, realPath string, method storepath.Method, algo nixhash.Algo, selfHashPart string) (hash nixhash.Hash, err error) {
	err = s.at(realPath, func(_ *handle, dir *fstree.Dir, name string) error {
		if method == storepath.MethodGit {
			hash, err = dir.HashGit(ctx, name, algo)
		} else {
			hash, err = s.hashModulo(ctx, dir, name, method, algo, selfHashPart)
		}
		return err
	})
	return hash, err
}

func (s *Store) hashModulo(ctx context.Context, dir *fstree.Dir, name string, method storepath.Method, algo nixhash.Algo, selfHashPart string) (nixhash.Hash, error) {
	sum := newHashWriter(algo)
	defer sum.stop()
	var out io.Writer = sum
	modulo := &moduloWriter{dst: sum, text: []byte(selfHashPart)}
	if selfHashPart != "" {
		out = modulo
	}
	var err error
	if method == storepath.MethodNAR {
		err = dir.Dump(ctx, name, out, fstree.DumpOptions{CaseHack: s.opts.CaseHack})
	} else {
		err = dir.CopyFile(ctx, name, out)
	}
	if err == nil && selfHashPart != "" {
		err = modulo.flush()
	}
	if err != nil {
		return nixhash.Hash{}, err
	}
	hash, _ := sum.finish()
	return hash, nil
}

// errNotRegular is upstream's, for archives that should have held one file.
var errNotRegular = errors.New("regular file expected")
