package board

import (
	"context"
	"errors"

	"nixdaemon/daemon/status"
	"nixdaemon/localstore/gc"
	"nixdaemon/worker/build"
	"nixdaemon/worker/substitute"
)

var (
	_ build.Observer      = (*Board)(nil)
	_ substitute.Observer = (*Board)(nil)
	_ gc.Observer         = (*Board)(nil)
)

// maxError bounds what is remembered of an error's text.
const maxError = 1 << 10

// BuildQueued is for those who count.
func (b *Board) BuildQueued(build.QueuedBuild) {}

// BuildWaits is for those who count.
func (b *Board) BuildWaits(build.BuildID, string) {}

// BuildRuns is for those who count.
func (b *Board) BuildRuns(build.BuildID) {}

// BuildBegan is for those who count.
func (b *Board) BuildBegan(build.BuildID, string) {}

// BuildPhase is for those who count.
func (b *Board) BuildPhase(build.BuildID, string) {}

// BuildEnded remembers a build. One that never began, since its outputs turned out to be there, is none to speak of.
func (b *Board) BuildEnded(_ build.BuildID, e build.EndedBuild) {
	if e.Began.IsZero() && e.Err == nil {
		return
	}
	ended := status.Ended{
		Kind: status.KindBuild, What: e.Drv.Base(), Began: e.Began, Ended: e.Ended, Users: users(append(e.Clients, e.For)),
	}
	if e.Began.IsZero() {
		ended.Began = e.Time
	}
	b.remember(ended, e.Err)
}

// FetchBegan is for those who count.
func (b *Board) FetchBegan(substitute.Fetch) {}

// FetchEnded remembers a fetch.
func (b *Board) FetchEnded(f substitute.Fetch, e substitute.FetchEnd) {
	b.remember(status.Ended{
		Kind: status.KindSubstitution, What: f.Path.Base(), Began: f.Began, Ended: e.Ended, Bytes: e.Done, Users: []string{f.User},
	}, e.Err)
}

// CollectionBegan is for those who count.
func (b *Board) CollectionBegan(gc.Collection) {}

// CollectionEnded remembers a collection.
func (b *Board) CollectionEnded(c gc.Collection, e gc.CollectionEnd) {
	if c.Action == gc.ReturnLive || c.Action == gc.ReturnDead {
		return // only a question
	}
	b.remember(status.Ended{Kind: status.KindCollection, Began: c.Began, Ended: e.Ended, Bytes: e.BytesFreed, Users: []string{c.For}}, e.Err)
}

// remember keeps what has ended in the place of the oldest.
func (b *Board) remember(e status.Ended, err error) {
	e.Outcome = status.Succeeded
	switch {
	case errors.Is(err, context.Canceled):
		e.Outcome = status.GivenUp
	case err != nil:
		text := err.Error()
		e.Outcome, e.Error = status.Failed, text[:min(len(text), maxError)]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.recent) < mostRecent {
		b.recent = append(b.recent, e)
		return
	}
	b.recent[b.next] = e
	b.next = (b.next + 1) % mostRecent
}

// ended lists what has ended, the last first.
func (b *Board) ended() []status.Ended {
	b.mu.Lock()
	defer b.mu.Unlock()
	dir := b.sources.Load().Dir
	list := make([]status.Ended, 0, len(b.recent))
	for i := range b.recent {
		e := b.recent[(b.next+len(b.recent)-1-i)%len(b.recent)]
		if e.What != "" {
			e.What = string(dir) + "/" + e.What
		}
		list = append(list, e)
	}
	return list
}
