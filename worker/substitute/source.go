package substitute

import (
	"context"
	"errors"
	"io"
	"strings"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// Asker is on whose behalf a store is asked.
type Asker struct {
	// Settings are the session's; when several sessions wait for one answer, those of the first.
	Settings *settings.Settings
	// Log is told how it goes; when several sessions wait, it tells them all.
	Log activity.Sink
	// Parent is the activity that the question is part of.
	Parent activity.ID
}

// under is the same asker with another parent.
func (a Asker) under(parent activity.ID) Asker {
	a.Parent = parent
	return a
}

// Source is a store that paths can be copied from. Its methods may be called from any goroutine.
type Source interface {
	// URI names the store in messages, without parameters and passwords.
	URI() string
	// Dir is the store directory of its paths.
	Dir() storepath.Dir
	// Priority orders the stores; lower is asked first.
	Priority() int
	// WantMassQuery tells whether it may be asked about many paths just to see what is there.
	WantMassQuery() bool
	// Trusted says that its paths need no signatures.
	Trusted() bool
	// PathInfo gives the metadata of a path, nil if the store does not have it. A store may answer about another path than
	// it was asked for: that is for the caller to see. Stores that know no file leave all but the path's own metadata
	// empty. The result is shared: do not modify it.
	PathInfo(ctx context.Context, a Asker, p storepath.Path) (*narinfo.NarInfo, error)
	// OpenNAR starts reading the archive that PathInfo told of. [ErrGone] is wrapped by the error when there is none.
	OpenNAR(ctx context.Context, a Asker, info *narinfo.NarInfo) (io.ReadCloser, error)
	// Realisation gives what an output of a derivation became, nil if the store does not know. Signatures are not
	// checked.
	Realisation(ctx context.Context, a Asker, id pathinfo.DrvOutput) (*pathinfo.Realisation, error)
	// Close ends it; nobody uses it any more.
	Close() error
}

var (
	// ErrGone is wrapped by errors about archives that are gone while their metadata is still there. That counts as if
	// the store had never offered the path.
	ErrGone = errors.New("substitute is gone")

	// ErrDisabled is wrapped by errors of stores that are set aside for a while.
	ErrDisabled = errors.New("substituter is disabled")

	// ErrNoObject is wrapped by errors of [Objects] about what is not there.
	ErrNoObject = errors.New("no such object")
)

// Objects are the files of a binary cache. Names are relative to the cache, with slashes; a narinfo may also name an
// absolute URL.
type Objects interface {
	// Get opens an object, or fails with an error that wraps [ErrNoObject].
	Get(ctx context.Context, a Asker, name string) (io.ReadCloser, error)
	// Exists tells whether there is an object of that name.
	Exists(ctx context.Context, a Asker, name string) (bool, error)
	// Put makes or replaces an object at once: nobody sees a part of it.
	Put(ctx context.Context, a Asker, name string, o Object) error
}

// Object is what is put into a binary cache.
type Object struct {
	// Open opens the contents and tells their size in bytes; it may be called more than once.
	Open func() (io.ReadCloser, int64, error)
	// Type is the MIME type, and Encoding the content encoding of HTTP, "" for none.
	Type, Encoding string
}

// Text is an object of a text.
func Text(text, mime string) Object {
	return Object{Open: func() (io.ReadCloser, int64, error) {
		return io.NopCloser(strings.NewReader(text)), int64(len(text)), nil
	}, Type: mime}
}
