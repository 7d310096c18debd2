package cachestore

import (
	"context"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/compression"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/substitute"
)

// upload is a path on its way into the cache: first its archive is received, then its objects are put there.
type upload struct {
	s       *Store
	nar     spool // compressed
	listing spool

	look     inspector
	list     *narinfo.Listing // nil for none
	narHash  nixhash.Hash
	narSize  uint64
	fileHash nixhash.Hash
	// address is the hash of the contents as their content address wants it; zero if nobody asked.
	address nixhash.Hash
	took    time.Duration
}

func (s *Store) newUpload() *upload {
	u := &upload{s: s}
	u.look.debug = s.params.debugInfo
	if s.params.listing {
		u.list = narinfo.NewListing(&u.listing)
		u.look.listing = u.list
	}
	return u
}

func (u *upload) close() error { return firstOf(u.nar.close(), u.listing.close()) }

// receive takes in one archive. ca, if not zero, says what else to hash of it.
func (u *upload) receive(r io.Reader, ca storepath.ContentAddress, algo nixhash.Algo) error {
	began := time.Now()
	fileSum, narSum := nixhash.SHA256.New(), nixhash.SHA256.New()
	compressed, err := compression.NewWriter(u.s.params.compression, u.s.params.level, u.s.params.parallel, io.MultiWriter(&u.nar, fileSum))
	if err != nil {
		return err
	}
	sinks := []io.Writer{compressed, narSum}
	var address hash.Hash
	switch ca.Method {
	case storepath.MethodNAR:
		address = algo.New()
		sinks = append(sinks, address)
	case storepath.MethodFlat, storepath.MethodText:
		address = algo.New()
		u.look.flat = address
	}
	size, err := nar.ParseTee(r, io.MultiWriter(sinks...), &u.look)
	if err = firstOf(err, compressed.Close()); err != nil {
		return err
	}
	if u.list != nil {
		if err := u.list.Finish(); err != nil {
			return err
		}
	}
	u.narSize, u.narHash = uint64(size), nixhash.FromSum(nixhash.SHA256, narSum)
	u.fileHash = nixhash.FromSum(nixhash.SHA256, fileSum)
	if address != nil && (ca.Method == storepath.MethodNAR || u.look.isFile) {
		u.address = nixhash.FromSum(algo, address)
	}
	u.took = time.Since(began)
	return nil
}

// firstOf is the first error: clients are told what went wrong, not what followed from it.
func firstOf(first, second error) error {
	if first == nil {
		return second
	}
	return first
}

// publish puts the path's objects into the cache, its narinfo last. What the path refers to is there.
func (u *upload) publish(ctx context.Context, info *pathinfo.Info, repair bool) error {
	return u.publishAfter(ctx, info, repair, nil, func() error { return nil })
}

// publishAfter is publish for a path of which some references, those for which coming is true, may not be there yet.
// They are when await returns, which is called before the narinfo is put.
func (u *upload) publishAfter(ctx context.Context, info *pathinfo.Info, repair bool, coming func(storepath.Path) bool, await func() error) error {
	s, a := u.s, u.s.asker()
	n := &narinfo.NarInfo{Info: *info, Compression: s.params.compression, FileHash: u.fileHash, FileSize: uint64(u.nar.size)}
	n.URL = "nar/" + u.fileHash.Nix32() + ".nar" + suffixes[s.params.compression]
	a.Log.Message(activity.Talkative, fmt.Sprintf("copying path '%s' (%d bytes, compressed %.1f%% in %d ms) to binary cache",
		s.Dir().Print(info.Path), info.NarSize, (1-float64(n.FileSize)/float64(info.NarSize))*100, u.took.Milliseconds()))
	if err := s.checkReferences(ctx, info, coming); err != nil {
		return err
	}
	if u.list != nil {
		if err := s.put(ctx, a, info.Path.HashPart()+".ls", substitute.Object{Open: u.listing.open, Type: "application/json"}, s.params.listingEncoding); err != nil {
			return err
		}
	}
	if err := u.indexDebugInfo(ctx, a, n.URL); err != nil {
		return err
	}
	there := false
	if !repair {
		var err error
		if there, err = s.o.Cache.Exists(ctx, a, n.URL); err != nil {
			return err
		}
	}
	if !there {
		if err := s.o.Cache.Put(ctx, a, n.URL, substitute.Object{Open: u.nar.open, Type: "application/x-nix-nar"}); err != nil {
			return err
		}
	}
	if err := await(); err != nil {
		return err
	}
	for _, key := range s.params.keys {
		if err := n.Sign(s.Dir(), key); err != nil {
			return err
		}
	}
	return s.putInfo(ctx, n)
}

func (s *Store) putInfo(ctx context.Context, n *narinfo.NarInfo) error {
	var kept spool
	defer kept.close()
	return s.o.Cache.PutInfo(ctx, s.asker(), n, func(o substitute.Object) (substitute.Object, error) {
		return s.encode(o, s.params.narinfoEncoding, &kept)
	})
}

// checkReferences refuses what refers to paths that the cache does not have and that are not coming, if that is not nil.
func (s *Store) checkReferences(ctx context.Context, info *pathinfo.Info, coming func(storepath.Path) bool) error {
	return substitute.Each(ctx, len(info.References), func(ctx context.Context, i int) error {
		ref := info.References[i]
		if ref == info.Path || coming != nil && coming(ref) {
			return nil
		}
		found, err := s.info(ctx, ref)
		if err == nil && found == nil {
			err = fmt.Errorf("cannot add '%s' to the binary cache because the reference '%s' is not valid",
				s.Dir().Print(info.Path), s.Dir().Print(ref))
		}
		return err
	})
}

// indexDebugInfo leads from build ids to the archive. What is there already stays.
func (u *upload) indexDebugInfo(ctx context.Context, a substitute.Asker, url string) error {
	return substitute.Each(ctx, len(u.look.members), func(ctx context.Context, i int) error {
		member := u.look.members[i]
		key := debugKey(member)
		there, err := u.s.o.Cache.Exists(ctx, a, key)
		if err != nil || there {
			return err
		}
		text, err := json.Marshal(struct { // in upstream's order
			Archive string `json:"archive"`
			Member  string `json:"member"`
		}{"../" + url, member})
		if err != nil {
			return err
		}
		a.Log.Message(activity.Talkative, "creating debuginfo link from '"+key+"' to '../"+url+"'")
		return u.s.o.Cache.Put(ctx, a, key, substitute.Text(string(text), "application/json"))
	})
}

// put uploads an object with a content encoding, "" for none.
func (s *Store) put(ctx context.Context, a substitute.Asker, name string, o substitute.Object, encoding string) (err error) {
	var kept spool
	defer func() { err = firstOf(err, kept.close()) }()
	if o, err = s.encode(o, encoding, &kept); err != nil {
		return err
	}
	return s.o.Cache.Put(ctx, a, name, o)
}

// encode compresses an object, if that is wanted and its server can be told of it.
func (s *Store) encode(o substitute.Object, encoding string, into *spool) (substitute.Object, error) {
	if encoding == "" || !s.o.Encoded {
		return o, nil
	}
	r, _, err := o.Open()
	if err != nil {
		return o, err
	}
	defer r.Close()
	w, err := compression.NewWriter(encoding, compression.DefaultLevel, false, into)
	if err != nil {
		return o, err
	}
	if _, err := io.Copy(w, r); err != nil {
		return o, err
	}
	o.Open, o.Encoding = into.open, encoding
	return o, w.Close()
}
