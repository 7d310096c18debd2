package substitute

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/session"
)

const (
	// narBuffer is how much of an archive is read ahead.
	narBuffer = 64 << 10

	// progressEvery is how often clients are told how far a path is: often enough to look at, rarely enough to cost nothing.
	progressEvery = 50 * time.Millisecond

	// slack is by how much an archive may be longer than its metadata says before the rest is not even read: up to
	// there the store itself says what is wrong, after having seen the whole.
	slack = 1 << 20

	// afterwards bounds what is read of a download behind the archive's end, so that its connection can be used again.
	afterwards = 64 << 10
)

// fetchKey is what makes two fetches the same.
type fetchKey struct {
	path   storepath.Path
	uri    string
	hash   nixhash.Hash
	repair bool
}

func (o *Offer) key(repair bool) fetchKey {
	return fetchKey{o.Info.Path, o.source.URI(), o.Info.NarHash, repair}
}

// Fetch makes an offered path valid in our store, or replaces it when repair is set. Its references are valid. The error
// wraps [ErrGone] when the offer was out of date.
func (s *Substituter) Fetch(ctx context.Context, sess *session.Session, o *Offer, repair bool) error {
	key := o.key(repair)
	_, err := s.fetches.do(ctx, key, sess.Log, func(ctx context.Context, log activity.Sink) (struct{}, error) {
		return struct{}{}, s.fetch(ctx, Asker{Settings: sess.Settings, Log: log}, sess, o, repair)
	})
	return err
}

func (s *Substituter) fetch(ctx context.Context, a Asker, sess *session.Session, o *Offer, repair bool) error {
	id := s.o.IDs.Next()
	there := o.source.Dir().Print(o.remote.Path)
	a.Log.Start(id, activity.Error, activity.Substitute, "", []activity.Field{
		activity.Text(s.o.Store.Dir().Print(o.Info.Path)), activity.Text(o.source.URI())}, 0)
	defer a.Log.Stop(id)
	if !repair {
		if valid, err := s.o.Store.IsValid(ctx, o.Info.Path); valid || err != nil {
			return err
		}
	}
	copyID := s.o.IDs.Next()
	a.Log.Start(copyID, activity.Info, activity.CopyPath, s.copyMessage(there, o.source.URI()), []activity.Field{
		activity.Text(there), activity.Text(o.source.URI()), activity.Text(s.o.StoreURI)}, id)
	defer a.Log.Stop(copyID)
	return s.observed(ctx, sess, o, func(ctx context.Context, f *fetching) error {
		defer s.early.drop(o.key(repair))
		return s.copy(ctx, a.under(copyID), o, there, repair, f)
	})
}

// copyMessage leaves out the store that everybody means (store-api.cc, makeCopyPathMessage).
func (s *Substituter) copyMessage(path, from string) string {
	to := s.o.StoreURI
	switch {
	case isShorthand(from):
		return "copying path '" + path + "' to '" + to + "'"
	case isShorthand(to):
		return "copying path '" + path + "' from '" + from + "'"
	}
	return "copying path '" + path + "' from '" + from + "' to '" + to + "'"
}

func isShorthand(uri string) bool {
	return uri == "local" || uri == "local://" || uri == "daemon" || uri == "unix://"
}

func (s *Substituter) copy(ctx context.Context, a Asker, o *Offer, there string, repair bool, f *fetching) error {
	info := *o.Info
	info.Ultimate = false
	info.RegistrationTime = 0
	stream := &download{ctx: ctx, asker: a, offer: o, early: &s.early, key: o.key(repair), path: there, left: 2*info.NarSize + slack, progress: f}
	defer stream.close()
	in, ok := s.readers.Get().(*wire.Reader)
	if !ok {
		in = wire.NewReaderSize(nil, narBuffer)
	}
	in.Reset(stream)
	defer func() {
		in.Reset(nil)
		s.readers.Put(in)
	}()
	err := s.o.Store.AddNAR(ctx, &info, in, localstore.AddOptions{
		Repair: repair, LeaveUnread: true,
		// Everybody who waits for this has seen to the signatures.
		DontCheckSigs: true,
		Optimise:      a.Settings.AutoOptimiseStore, Log: a.Log,
	})
	if stream.err != nil && err != nil {
		return stream.err // as it was, before what reads archives put its words to it
	}
	if err == nil {
		stream.finish()
	}
	return err
}

// download is an archive on its way. Nothing is asked for before somebody reads.
type download struct {
	ctx   context.Context
	asker Asker
	offer *Offer
	path  string // as the store prints it
	early *earlies
	key   fetchKey

	body io.ReadCloser // nil until the first read
	left uint64        // bytes that are still read
	done uint64        // bytes that were
	err  error         // why it broke off; nil while it goes well

	progress *fetching // counts what has arrived, for whoever wants to know

	shown     uint64
	shownTime time.Time
}

func (d *download) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	if d.ctx.Err() != nil {
		d.err = context.Cause(d.ctx)
		return 0, d.err
	}
	if d.body == nil {
		if d.body, d.err = d.open(); d.err != nil {
			return 0, d.err
		}
	}
	n, err := d.body.Read(p[:min(uint64(len(p)), d.left+1)])
	d.account(uint64(n))
	if err != nil {
		d.err = d.broken(err)
		return n, d.err
	}
	return n, nil
}

// open begins with what was got before, or asks for the archive now.
func (d *download) open() (io.ReadCloser, error) {
	source, ok := d.offer.source.(packed)
	if !ok {
		return d.offer.source.OpenNAR(d.ctx, d.asker, d.offer.remote)
	}
	file, err := d.early.take(d.ctx, d.key)
	switch {
	case err != nil:
		return nil, err
	case file == nil:
		return d.openAside(d.offer.remote)
	}
	return source.Unpack(d.ctx, d.asker, d.offer.remote, io.NopCloser(bytes.NewReader(file)))
}

// account counts what has arrived, and shows it.
func (d *download) account(n uint64) {
	d.done += n
	d.progress.add(n)
	if n > d.left {
		d.err = errorf(nil, "NAR for '%s' fetched from '%s' is larger than it should be", d.path, d.offer.source.URI())
		d.left = 0
		return
	}
	d.left -= n
	if d.done >= d.offer.Info.NarSize || time.Since(d.shownTime) >= progressEvery {
		d.show()
	}
}

func (d *download) show() {
	if d.done == d.shown {
		return
	}
	d.shown, d.shownTime = d.done, time.Now()
	d.asker.Log.Result(d.asker.Parent, activity.Progress, []activity.Field{
		activity.Number(d.done), activity.Number(d.offer.Info.NarSize), activity.Number(0), activity.Number(0)})
}

// broken turns the end of the stream into an error: an archive says itself where it ends, and who reads it does not
// read further.
func (d *download) broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errorf(err, "NAR for '%s' fetched from '%s' is incomplete", d.path, d.offer.source.URI())
	}
	return err
}

// finish reads what little may follow the archive.
func (d *download) finish() {
	d.show()
	if d.body != nil && d.err == nil {
		_, _ = io.CopyN(io.Discard, d.body, afterwards)
	}
}

func (d *download) close() {
	if d.body != nil {
		d.body.Close()
	}
}
