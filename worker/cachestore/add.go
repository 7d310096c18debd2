package cachestore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/limited"
	"nixdaemon/worker/substitute"
)

// AddNAR adds a path whose metadata is given with the archive of its contents. Exactly one archive is consumed from r
// unless it is malformed, or o says to leave it.
func (s *Store) AddNAR(ctx context.Context, info *pathinfo.Info, r io.Reader, o localstore.AddOptions) error {
	u, err := s.receive(ctx, info, r, o)
	if u == nil || err != nil {
		return err
	}
	return firstOf(u.publish(ctx, info, o.Repair), u.close())
}

// receive takes in an archive; nil if the path is valid, so that nothing is to be done.
func (s *Store) receive(ctx context.Context, info *pathinfo.Info, r io.Reader, o localstore.AddOptions) (*upload, error) {
	skip := func(err error) error {
		if o.LeaveUnread {
			return err
		}
		if skipped := nar.Skip(r); err == nil {
			err = skipped
		}
		return err
	}
	proof, err := s.admit(info, o)
	if err != nil {
		return nil, skip(err)
	}
	if !o.Repair {
		if valid, err := s.IsValid(ctx, info.Path); valid || err != nil {
			return nil, skip(err)
		}
	}
	u := s.newUpload()
	err = u.receive(r, proof, proof.Hash.Algo())
	if err == nil {
		err = u.check(info, proof)
	}
	if err != nil {
		return nil, firstOf(err, u.close())
	}
	return u, nil
}

// admit refuses what a client that is not trusted may not add. Its result is the content address that the contents
// must prove; zero for none.
func (s *Store) admit(info *pathinfo.Info, o localstore.AddOptions) (proof storepath.ContentAddress, err error) {
	sess := s.session()
	if o.DontCheckSigs || !o.RequireSigs || sess == nil || sess.Trusted {
		return proof, nil
	}
	signed := *info
	signed.CA = storepath.ContentAddress{}
	if o.TrustedKeys.CountValid(s.Dir(), &signed) > 0 {
		return proof, nil
	}
	// Contents that refer to themselves are not hashed as they are.
	if info.IsContentAddressed(s.Dir()) && !info.SplitReferences().Self && info.CA.Method != storepath.MethodGit {
		return info.CA, nil
	}
	return proof, fmt.Errorf("cannot add path '%s' because it lacks a signature by a trusted key", s.Dir().Print(info.Path))
}

// check holds what was received against the metadata.
func (u *upload) check(info *pathinfo.Info, proof storepath.ContentAddress) error {
	path := u.s.Dir().Print(info.Path)
	switch {
	case u.narHash != info.NarHash:
		return fmt.Errorf("hash mismatch importing path '%s';\n  specified: %s\n  got:       %s", path, info.NarHash, u.narHash)
	case u.narSize != info.NarSize:
		return fmt.Errorf("size mismatch importing path '%s';\n  specified: %d\n  got:       %d", path, info.NarSize, u.narSize)
	case !proof.IsZero() && u.address.IsZero():
		return limited.ErrNotFlat
	case !proof.IsZero() && u.address != proof.Hash:
		return fmt.Errorf("ca hash mismatch importing path '%s';\n  specified: %s\n  got:       %s", path, proof.Hash, u.address)
	}
	return nil
}

// AddEntries adds the paths of an OpAddMultipleToStore.
func (s *Store) AddEntries(ctx context.Context, entries *protocol.Reader, o localstore.AddOptions) error {
	return s.AddNARs(ctx, limited.Entries(entries), o)
}

// AddDump adds contents under their content address.
func (s *Store) AddDump(ctx context.Context, spec localstore.DumpSpec, data io.Reader, o localstore.AddOptions) (_ *pathinfo.Info, err error) {
	if spec.Method == storepath.MethodGit {
		return nil, s.Unsupported("addToStoreFromDump")
	}
	u := s.newUpload()
	defer func() { err = firstOf(err, u.close()) }()
	if spec.Method != storepath.MethodNAR && !spec.IsNAR {
		var flat spool
		defer flat.close()
		if err := archive(&flat, data); err != nil {
			return nil, err
		}
		if data, _, err = flat.open(); err != nil {
			return nil, err
		}
	}
	if err := u.receive(data, storepath.ContentAddress{Method: spec.Method}, spec.Algo); err != nil {
		return nil, err
	}
	if u.address.IsZero() {
		return nil, limited.ErrNotFlat
	}
	ca := storepath.ContentAddress{Method: spec.Method, Hash: u.address}
	info, err := pathinfo.FromCA(s.Dir(), spec.Name, ca, storepath.References{Others: spec.References})
	if err != nil {
		return nil, err
	}
	info.NarHash, info.NarSize = u.narHash, u.narSize
	return info, u.publish(ctx, info, o.Repair || spec.Repair)
}

// archive makes the archive of a file with these contents, whose size must be known before the first of them.
func archive(into *spool, contents io.Reader) error {
	var plain spool
	defer plain.close()
	if _, err := io.Copy(&plain, contents); err != nil {
		return err
	}
	r, size, err := plain.open()
	if err != nil {
		return err
	}
	w := nar.NewWriter(into)
	if err := w.Regular("", false, uint64(size), r); err != nil {
		return err
	}
	return w.Close()
}

// maxSignatures bounds, in bytes, what clients that are not trusted make a path's signatures: everybody gets them all.
const maxSignatures = 64 << 10

// AddSignatures adds signatures to a valid path.
func (s *Store) AddSignatures(ctx context.Context, p storepath.Path, sigs []pathinfo.Signature) error {
	info, err := s.validInfo(ctx, p)
	if err != nil {
		return err
	}
	changed := *info // others look at it, too
	changed.Sigs = pathinfo.MergeSignatures(info.Sigs, pathinfo.SortSignatures(append([]pathinfo.Signature{}, sigs...)))
	if sess := s.session(); sess != nil && !sess.Trusted {
		size := 0
		for _, sig := range changed.Sigs {
			size += len(sig)
		}
		if size > maxSignatures {
			return errors.New("you are not privileged to add so many signatures")
		}
	}
	return s.putInfo(ctx, &changed)
}

// AddBuildLog adds the log of a derivation's build.
func (s *Store) AddBuildLog(ctx context.Context, drv storepath.Path, log io.Reader) (err error) {
	var text spool
	defer func() { err = firstOf(err, text.close()) }()
	if _, err := io.Copy(&text, log); err != nil {
		return err
	}
	return s.put(ctx, s.asker(), "log/"+drv.Base(), substitute.Object{Open: text.open, Type: "text/plain; charset=utf-8"}, s.params.logEncoding)
}
