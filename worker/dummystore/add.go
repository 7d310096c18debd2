package dummystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/export"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/limited"
	"nixdaemon/worker/substitute"
)

// refuseRepair is upstream's (libstore/dummy-store.cc).
func refuseRepair(repair bool) error {
	if !repair {
		return nil
	}
	return fmt.Errorf("repairing is not supported for '%s' store", URI)
}

// mayAdd refuses what no client may add, or none that wants signatures to be looked at.
func (s *Store) mayAdd(o localstore.AddOptions) error {
	if s.o.ReadOnly {
		return s.Unsupported("addToStore")
	}
	err := refuseRepair(o.Repair)
	if err == nil && !o.DontCheckSigs {
		err = fmt.Errorf("checking signatures is not supported for '%s' store", URI)
	}
	return err
}

// AddNAR adds a path whose metadata is given with the archive of its contents. Exactly one archive is consumed from r
// unless it is malformed, or o says to leave it.
func (s *Store) AddNAR(_ context.Context, info *pathinfo.Info, r io.Reader, o localstore.AddOptions) error {
	if err := s.mayAdd(o); err != nil {
		if !o.LeaveUnread {
			err = firstOf(err, nar.Skip(r))
		}
		return err
	}
	if info.Path.IsDerivation() {
		return s.addDerivation(info.Path, r, o)
	}
	data := &hold{s: s}
	sum := nixhash.SHA256.New()
	size, err := nar.Copy(io.MultiWriter(data, sum), r)
	if err == nil {
		err = s.check(info, nixhash.FromSum(nixhash.SHA256, sum), uint64(size))
	}
	if err != nil {
		data.drop()
		return err
	}
	s.put(info, data)
	return nil
}

// check holds what was received against the metadata, which upstream believes.
func (s *Store) check(info *pathinfo.Info, hash nixhash.Hash, size uint64) error {
	switch path := s.o.Dir.Print(info.Path); {
	case hash != info.NarHash:
		return fmt.Errorf("hash mismatch importing path '%s';\n  specified: %s\n  got:       %s", path, info.NarHash, hash)
	case size != info.NarSize:
		return fmt.Errorf("size mismatch importing path '%s';\n  specified: %d\n  got:       %d", path, info.NarSize, size)
	}
	return nil
}

// firstOf is the first error: clients are told what went wrong, not what followed from it.
func firstOf(first, second error) error {
	if first == nil {
		return second
	}
	return first
}

// put makes a path valid. Who comes first stays.
func (s *Store) put(info *pathinfo.Info, data *hold) {
	s.mu.Lock()
	_, there := s.paths[info.Path]
	s.mu.Unlock()
	if there {
		data.drop()
		return
	}
	kept := object{info, data.keep()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[info.Path] = kept
}

// addDerivation adds the derivation that an archive holds.
func (s *Store) addDerivation(p storepath.Path, r io.Reader, o localstore.AddOptions) error {
	if o.Log != nil {
		substitute.Warn(o.Log, errors.New("back compat supporting `addToStore` for inserting derivations in dummy store"))
	}
	text := &hold{s: s}
	defer text.drop()
	err := nar.Parse(r, limited.OneFile(func(contents io.Reader) error {
		_, err := io.Copy(text, contents)
		return err
	}))
	if err != nil {
		return err
	}
	drv, err := derivation.ParseFile(s.o.Dir, p, text.data.String(), s.o.Features)
	if err != nil {
		return err
	}
	return s.putDerivation(drv)
}

func (s *Store) putDerivation(drv *derivation.Derivation) error {
	p, err := drv.Path(s.o.Dir)
	if err != nil {
		return err
	}
	text, err := drv.ATerm(s.o.Dir)
	if err != nil {
		return err
	}
	data, hash, err := s.archive([]byte(text))
	if err != nil {
		return err
	}
	info := &pathinfo.Info{
		Path: p, NarHash: hash, NarSize: uint64(data.data.Len()),
		CA: storepath.ContentAddress{Method: storepath.MethodText, Hash: nixhash.Of(nixhash.SHA256, text)},
	}
	s.put(info, data)
	return nil
}

// archive makes the archive of a file with these contents.
func (s *Store) archive(contents []byte) (*hold, nixhash.Hash, error) {
	data := &hold{s: s}
	sum := nixhash.SHA256.New()
	w := nar.NewWriter(io.MultiWriter(data, sum))
	err := w.Regular("", false, uint64(len(contents)), bytes.NewReader(contents))
	if err = firstOf(err, w.Close()); err != nil {
		data.drop()
		return nil, nixhash.Hash{}, err
	}
	return data, nixhash.FromSum(nixhash.SHA256, sum), nil
}

// AddDump adds contents under their content address. That of git is not known here.
func (s *Store) AddDump(_ context.Context, spec localstore.DumpSpec, data io.Reader, o localstore.AddOptions) (*pathinfo.Info, error) {
	if strings.HasSuffix(spec.Name, ".drv") {
		return nil, errors.New("Do not insert derivation into dummy store with `addToStoreFromDump`") // upstream's text
	}
	if s.o.ReadOnly || spec.Method == storepath.MethodGit {
		return nil, s.Unsupported("addToStoreFromDump")
	}
	if err := refuseRepair(o.Repair || spec.Repair); err != nil {
		return nil, err
	}
	archive, narHash, address, err := s.receive(spec, data)
	if err != nil {
		return nil, err
	}
	references := spec.References
	if spec.Scan != nil {
		references = spec.Scan.References()
	}
	info, err := pathinfo.FromCA(s.o.Dir, spec.Name, storepath.ContentAddress{Method: spec.Method, Hash: address}, storepath.References{Others: references})
	if err != nil {
		archive.drop()
		return nil, err
	}
	info.NarHash, info.NarSize = narHash, uint64(archive.data.Len())
	s.put(info, archive)
	return info, nil
}

// receive takes contents in as an archive, and makes their address.
func (s *Store) receive(spec localstore.DumpSpec, r io.Reader) (archive *hold, narHash, address nixhash.Hash, err error) {
	if spec.Scan != nil {
		r = io.TeeReader(r, spec.Scan)
	}
	sum := spec.Algo.New()
	if spec.Method == storepath.MethodNAR {
		archive = &hold{s: s}
		narSum := nixhash.SHA256.New()
		if _, err = nar.Copy(io.MultiWriter(archive, narSum, sum), r); err != nil {
			archive.drop()
		}
		return archive, nixhash.FromSum(nixhash.SHA256, narSum), nixhash.FromSum(spec.Algo, sum), err
	}
	contents := &hold{s: s}
	defer contents.drop()
	take := func(r io.Reader) error {
		_, err := io.Copy(io.MultiWriter(contents, sum), r)
		return err
	}
	if spec.IsNAR {
		err = nar.Parse(r, limited.OneFile(take))
	} else {
		err = take(r)
	}
	if err == nil {
		archive, narHash, err = s.archive(contents.data.Bytes())
	}
	return archive, narHash, nixhash.FromSum(spec.Algo, sum), err
}

// AddNARs adds the paths that next gives, one by one.
func (s *Store) AddNARs(ctx context.Context, next func() (*pathinfo.Info, io.Reader, error), o localstore.AddOptions) error {
	for {
		info, data, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.AddNAR(ctx, info, data, o)
		}
		if err != nil {
			return err
		}
	}
}

// AddEntries adds the paths of an OpAddMultipleToStore.
func (s *Store) AddEntries(ctx context.Context, entries *protocol.Reader, o localstore.AddOptions) error {
	return s.AddNARs(ctx, limited.Entries(entries), o)
}

// ImportPaths adds the paths of a stream in the format of "nix-store --export" and gives them in their order.
func (s *Store) ImportPaths(ctx context.Context, r io.Reader, o localstore.AddOptions) ([]storepath.Path, error) {
	keep := func(context.Context) (export.Kept, error) { return &hold{s: s}, nil }
	return export.Read(ctx, r, s.o.Dir, keep, func(ctx context.Context, info *pathinfo.Info, archive io.Reader) error {
		return s.AddNAR(ctx, info, archive, o)
	})
}

// AddBuildLog is refused.
func (s *Store) AddBuildLog(context.Context, storepath.Path, io.Reader) error {
	return s.Lacks("Build log storage and retrieval")
}

// Dump writes the archive of a valid path.
func (s *Store) Dump(_ context.Context, p storepath.Path, w io.Writer) error {
	o, err := s.valid(p)
	if err == nil {
		_, err = w.Write(o.nar)
	}
	return err
}

// RealPath is what DumpFile calls a path by; nothing is there.
func (s *Store) RealPath(p storepath.Path) string { return s.o.Dir.Print(p) }

// DumpFile writes the archive of a path that RealPath has named.
func (s *Store) DumpFile(ctx context.Context, realPath string, w io.Writer) error {
	p, err := s.o.Dir.Parse(realPath)
	if err != nil {
		return err
	}
	return s.Dump(ctx, p, w)
}

// ExportPath writes one path in the format of "nix-store --export".
func (s *Store) ExportPath(ctx context.Context, p storepath.Path, w io.Writer) error {
	return export.Path(ctx, s, p, w)
}

// ReadDerivation reads a derivation.
func (s *Store) ReadDerivation(_ context.Context, p storepath.Path) (*derivation.Derivation, error) {
	if err := p.RequireDerivation(); err != nil {
		return nil, err
	}
	o, ok := s.find(p)
	if !ok {
		return nil, fmt.Errorf("derivation '%s' is not valid", s.o.Dir.Print(p))
	}
	var text strings.Builder
	err := nar.Parse(wire.NewReader(bytes.NewReader(o.nar)), limited.OneFile(func(contents io.Reader) error {
		_, err := io.Copy(&text, contents)
		return err
	}))
	if err != nil {
		return nil, err
	}
	return derivation.ParseFile(s.o.Dir, p, text.String(), s.o.Features)
}
