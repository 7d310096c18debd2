package substitute

import (
	"context"
	"errors"
	"io"
	"sync"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// Store is where paths are copied to; *localstore.Store is one.
type Store interface {
	Dir() storepath.Dir
	IsValid(ctx context.Context, p storepath.Path) (bool, error)
	AddNAR(ctx context.Context, info *pathinfo.Info, nar io.Reader, o localstore.AddOptions) error
}

var _ Store = (*localstore.Store)(nil)

// Options join a [Substituter] to the rest.
type Options struct {
	Store Store
	// Open opens the store that a reference names. Sources of references with the scheme file belong to one client, all
	// others to everybody.
	Open func(ctx context.Context, a Asker, ref settings.StoreReference) (Source, error)
	// Keys are those whose signatures a session trusts.
	Keys func(*settings.Settings) pathinfo.Keys
	// RequireSigs says whether the store wants signatures at all.
	RequireSigs bool
	// ReadOnly says that the store cannot be added to.
	ReadOnly bool
	// StoreURI names our store in messages: "local", or with parameters "local://".
	StoreURI string
	// IDs numbers activities.
	IDs *activity.IDs
	// Observer is told of what is fetched; nil if nobody wants to know.
	Observer Observer
}

// Substituter gets paths from the stores that the sessions name. Its methods may be called from any goroutine.
type Substituter struct {
	o       Options
	stores  *registry
	fetches flights[fetchKey, struct{}]
	aheads  flights[fetchKey, struct{}]
	early   earlies
	readers sync.Pool // of archives: *wire.Reader

	progress progress
}

// New makes a substituter. Close it.
func New(o Options) *Substituter {
	return &Substituter{o: o, stores: newRegistry(o.Open)}
}

// Retire has connections to other daemons, and other stores, closed as soon as nobody uses them: when we wait for the last
// client to leave, one of those may lead to ourselves.
func (s *Substituter) Retire() { s.stores.retire() }

// Close waits for what still runs and closes the stores. Nobody must ask any more.
func (s *Substituter) Close() error {
	s.aheads.close()
	s.fetches.close()
	return s.stores.close()
}

func (s *Substituter) asker(sess *session.Session) Asker {
	return Asker{Settings: sess.Settings, Log: sess.Log}
}

// sources are the session's stores in the order in which they are asked; none when it does not substitute.
func (s *Substituter) sources(ctx context.Context, sess *session.Session) ([]Source, error) {
	if !sess.Settings.Substitute {
		return nil, nil
	}
	return s.stores.list(ctx, sess)
}

// skip tells whether an error only says that a store is passed over for now.
func skip(err error) bool { return errors.Is(err, ErrDisabled) }
