package substitute

import (
	"context"
	"errors"
	"io"

	"nixdaemon/protocol/activity"
	"nixdaemon/worker/transfer"
)

// Transferred is a binary cache's files on a server.
type Transferred struct {
	objects transfer.Objects
	ids     *activity.IDs
}

var _ Objects = (*Transferred)(nil)

// NewTransferred makes Objects of those that an engine transfers.
func NewTransferred(objects transfer.Objects, ids *activity.IDs) *Transferred {
	return &Transferred{objects, ids}
}

func (t *Transferred) call(a Asker) transfer.Call {
	s := transfer.From(a.Settings)
	return transfer.Call{Settings: &s, Log: a.Log, IDs: t.ids, Parent: a.Parent}
}

// Get begins a download.
func (t *Transferred) Get(ctx context.Context, a Asker, name string) (io.ReadCloser, error) {
	resp, err := t.objects.Get(ctx, name, t.call(a))
	if err != nil {
		return nil, noObject(name, err)
	}
	return resp.Body, nil
}

// noObject marks errors about what is not there. Being refused means that, too, but not for a cache as a whole
// (http-binary-cache-store.cc, getNixCacheInfo).
func noObject(name string, err error) error {
	if !errors.Is(err, transfer.ErrNotFound) {
		return err
	}
	if name == cacheInfoName && errors.Is(err, transfer.ErrForbidden) {
		if refused := errors.Unwrap(err); refused != nil {
			return refused
		}
	}
	return &Error{err.Error(), coloured(err), ErrNoObject}
}

// Exists asks for the object's head.
func (t *Transferred) Exists(ctx context.Context, a Asker, name string) (bool, error) {
	return t.objects.Exists(ctx, name, t.call(a))
}

// Put uploads.
func (t *Transferred) Put(ctx context.Context, a Asker, name string, o Object) error {
	return t.objects.Put(ctx, name, o.Open, o.Type, o.Encoding, t.call(a))
}
