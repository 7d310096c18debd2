package daemon

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"nixdaemon/daemon/status/board"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/build"
	"nixdaemon/worker/substitute"
)

// awayBuilders are those at work for stores that are away: one for all connections, none before the first of these, or
// one for each connection where each has a store of its own.
type awayBuilders struct {
	// numbers tells the builds of all of them apart.
	numbers atomic.Uint64

	mu  sync.Mutex
	all []*awayBuilder // in the order of their beginning
}

func (a *awayBuilders) add(b *awayBuilder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, b)
}

func (a *awayBuilders) remove(b *awayBuilder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = slices.DeleteFunc(a.all, func(one *awayBuilder) bool { return one == b })
}

// list gives those that there are, which may be none.
func (a *awayBuilders) list() []*awayBuilder {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.all)
}

// sources are what goes on, for those who look.
func (a *awayBuilders) sources(dir storepath.Dir) board.Sources {
	return board.Sources{Dir: dir, Builds: a.status, Waits: a.waits, Fetches: a.fetches}
}

func (a *awayBuilders) status() (all build.Status) {
	for _, b := range a.list() {
		st := b.Status()
		all.Slots, all.Running = all.Slots+st.Slots, all.Running+st.Running
		all.Builds, all.Clients = append(all.Builds, st.Builds...), append(all.Clients, st.Clients...)
		all.Requests = append(all.Requests, st.Requests...)
	}
	return all
}

func (a *awayBuilders) waits(most int) (all []build.Wait, count int) {
	for _, b := range a.list() {
		list, n := b.Waits(most)
		all, count = append(all, list...), count+n
	}
	return all, count
}

func (a *awayBuilders) fetches() (all []substitute.FetchStatus) {
	for _, b := range a.list() {
		all = append(all, b.subst.Fetching()...)
	}
	return all
}

// building is what other machines build for clients.
func (a *awayBuilders) building() (all []string) {
	for _, b := range a.list() {
		all = append(all, names(b.Building())...)
	}
	return all
}

// Cancel is part of builds.
func (a *awayBuilders) Cancel(id build.BuildID, by string, mine bool) error {
	for _, b := range a.list() {
		if err := b.Cancel(id, by, mine); !errors.Is(err, build.ErrNoBuild) {
			return err
		}
	}
	return build.ErrNoBuild
}

// FollowLog is part of builds.
func (a *awayBuilders) FollowLog(id build.BuildID, by string, mine bool) (*build.LogReader, error) {
	for _, b := range a.list() {
		if r, err := b.FollowLog(id, by, mine); !errors.Is(err, build.ErrNoBuild) {
			return r, err
		}
	}
	return nil, build.ErrNoBuild
}

// building is what other machines build for clients that share the store.
func (b *away) building() []string { return b.working.building() }

func (b *away) retire() {
	for _, one := range b.working.list() {
		retire(one.subst, one.machines, b.log)
	}
}
