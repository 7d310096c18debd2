package substitute

import (
	"context"
	"slices"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// Offer is one store's word that it has a path.
type Offer struct {
	// Info is the path's metadata, under the path that was asked for.
	Info *pathinfo.Info
	// DownloadSize is in bytes, 0 when unknown.
	DownloadSize uint64

	source Source
	remote *narinfo.NarInfo // as the store has it
}

// Find gives the first offer of the stores behind the one that made the offer after (nil: of all) that the session may
// take, nil if there is none. With a content address stores with another store directory are asked, too. What is not
// signed by a key that the session trusts is passed over with a warning. Errors of stores are told to the session; that
// of the last store is returned instead (libstore/build/substitution-goal.cc).
func (s *Substituter) Find(ctx context.Context, sess *session.Session, p storepath.Path, ca storepath.ContentAddress, after *Offer) (*Offer, error) {
	if err := s.checkWritable(sess, p); err != nil {
		return nil, err
	}
	sources, err := s.sources(ctx, sess)
	if err != nil {
		return nil, err
	}
	return s.first(ctx, sess, behind(sources, after), func(src Source) (*Offer, error) {
		return s.acceptableOffer(ctx, sess, src, p, ca)
	})
}

// FindQuickly is Find if nothing has to be asked over a network. Otherwise known is false.
func (s *Substituter) FindQuickly(ctx context.Context, sess *session.Session, p storepath.Path, ca storepath.ContentAddress, after *Offer) (o *Offer, known bool, err error) {
	if !sess.Settings.Substitute {
		return nil, true, nil
	}
	if err := s.checkWritable(sess, p); err != nil {
		return nil, true, err
	}
	sources, known := s.stores.known(sess)
	if !known {
		return nil, false, nil
	}
	sources = behind(sources, after)
	// Whether the answer is at hand is found out before anybody is told anything.
	for _, src := range sources {
		there, ok := s.pathAt(src, p, ca)
		if !ok {
			continue
		}
		info, known := quickly(ctx, s.asker(sess), src, there)
		if !known {
			return nil, false, nil
		}
		if info != nil {
			break
		}
	}
	o, err = s.first(ctx, sess, sources, func(src Source) (*Offer, error) {
		return s.acceptableOffer(ctx, sess, src, p, ca)
	})
	return o, true, err
}

// quickly tells whether a store's answer is at hand, and whether it is a good one.
func quickly(ctx context.Context, a Asker, src Source, p storepath.Path) (info *narinfo.NarInfo, known bool) {
	q, ok := src.(interface {
		Known(ctx context.Context, a Asker, p storepath.Path) (*narinfo.NarInfo, bool)
	})
	if !ok {
		return nil, false
	}
	return q.Known(ctx, a, p)
}

func (s *Substituter) checkWritable(sess *session.Session, p storepath.Path) error {
	if !s.o.ReadOnly && !sess.Settings.ReadOnlyMode {
		return nil
	}
	return errorf(nil, "cannot substitute path '%s' - no write access to the Nix store", s.o.Store.Dir().Print(p))
}

// behind gives the stores after the one that made an offer. One that is no more in the list had its turn.
func behind(sources []Source, after *Offer) []Source {
	if after == nil {
		return sources
	}
	return sources[slices.IndexFunc(sources, func(s Source) bool { return s == after.source || s.URI() == after.source.URI() })+1:]
}

// acceptableOffer is offer for those who want to take it.
func (s *Substituter) acceptableOffer(ctx context.Context, sess *session.Session, src Source, p storepath.Path, ca storepath.ContentAddress) (*Offer, error) {
	o, err := s.offer(ctx, sess, src, p, ca)
	if err != nil || o == nil || !s.acceptable(sess, o) {
		return nil, err
	}
	return o, nil
}

// first asks one store after the other.
func (s *Substituter) first(ctx context.Context, sess *session.Session, sources []Source, ask func(Source) (*Offer, error)) (*Offer, error) {
	var last error
	for _, src := range sources {
		if last != nil {
			logError(sess.Log, last)
		}
		var o *Offer
		o, last = ask(src)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case last != nil && skip(last):
			last = nil
		case o != nil:
			return o, nil
		}
	}
	return nil, last
}

// pathAt is what a store with another directory would call a path; false if it cannot have it.
func (s *Substituter) pathAt(src Source, p storepath.Path, ca storepath.ContentAddress) (storepath.Path, bool) {
	if src.Dir() == s.o.Store.Dir() {
		return p, true
	}
	if ca.IsZero() {
		return p, false
	}
	there, err := src.Dir().FromContentAddress(p.Name(), ca, storepath.References{})
	return there, err == nil
}

// offer asks one store; nil if it does not have the path.
func (s *Substituter) offer(ctx context.Context, sess *session.Session, src Source, p storepath.Path, ca storepath.ContentAddress) (*Offer, error) {
	there, ok := s.pathAt(src, p, ca)
	if !ok {
		return nil, nil
	}
	remote, err := src.PathInfo(ctx, s.asker(sess), there)
	if err != nil || remote == nil {
		return nil, err
	}
	o := &Offer{Info: &remote.Info, DownloadSize: remote.FileSize, source: src, remote: remote}
	if remote.Path == p {
		return o, nil
	}
	if remote.Path != there || !remote.IsContentAddressed(src.Dir()) || len(remote.References) > 0 {
		sess.Log.Message(activity.Error, "asked '"+src.URI()+"' for '"+s.o.Store.Dir().Print(p)+"' but got '"+src.Dir().Print(remote.Path)+"'")
		return nil, nil
	}
	info := remote.Info
	info.Path = p
	o.Info = &info
	return o, nil
}

// acceptable checks the signatures before anything is downloaded.
func (s *Substituter) acceptable(sess *session.Session, o *Offer) bool {
	if !s.o.RequireSigs || o.source.Trusted() || s.o.Keys(sess.Settings).CountValid(s.o.Store.Dir(), o.Info) > 0 {
		return true
	}
	warn(sess.Log, errorf(nil, "ignoring substitute for '%s' from '%s', as it's not signed by any of the keys in 'trusted-public-keys'",
		s.o.Store.Dir().Print(o.Info.Path), o.source.URI()))
	return false
}

// Look is Find for those who only want to know: signatures are not checked (libstore/store-api.cc,
// querySubstitutablePathInfos).
func (s *Substituter) Look(ctx context.Context, sess *session.Session, p storepath.Path, _ storepath.ContentAddress) (*Offer, error) {
	sources, err := s.sources(ctx, sess)
	if err != nil {
		return nil, err
	}
	o, err := s.first(ctx, sess, sources, func(src Source) (*Offer, error) {
		// Stores with another directory have the path under another name, for which upstream does not ask here.
		if src.Dir() != s.o.Store.Dir() {
			return nil, nil
		}
		remote, err := src.PathInfo(ctx, s.asker(sess), p)
		if err != nil || remote == nil || remote.Path != p {
			return nil, err
		}
		return &Offer{Info: &remote.Info, DownloadSize: remote.FileSize, source: src, remote: remote}, nil
	})
	if err != nil && sess.Settings.Fallback && ctx.Err() == nil {
		logError(sess.Log, err)
		return nil, nil
	}
	return o, err
}
