package substitute

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/peer"
)

// farAway is a daemon that a round trip to takes a second.
type farAway struct {
	peer.Store
	has   map[storepath.Path]bool
	fails error

	mu    sync.Mutex
	trips int
}

func (f *farAway) Config() peer.Config {
	return peer.Config{Priority: 7, Trusted: true, WantMassQuery: true, Unknown: []string{"colour"}}
}
func (f *farAway) URI() string        { return "ssh-ng://far" }
func (f *farAway) Dir() storepath.Dir { return "/nix/store" }
func (f *farAway) Close() error       { return nil }

func (f *farAway) PathInfos(ctx context.Context, paths []storepath.Path) ([]*pathinfo.Info, error) {
	f.mu.Lock()
	f.trips++
	f.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var infos []*pathinfo.Info
	for _, p := range paths {
		if f.has[p] {
			infos = append(infos, &pathinfo.Info{Path: p})
		}
	}
	return infos, f.fails
}

func (f *farAway) NAR(_ context.Context, p storepath.Path) (io.ReadCloser, error) {
	if f.has[p] && f.fails == nil {
		return io.NopCloser(strings.NewReader("archive")), nil
	}
	return nil, errors.New("no archive")
}

// TestPeerForgets is about a path that is deleted there after it was asked for: it is gone, instead of broken.
func TestPeerForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, paths := newServer(t)
		far := &farAway{has: map[storepath.Path]bool{paths[0]: true}}
		p := OpenPeer(Asker{Log: &recorder{}}, far)
		info, err := p.PathInfo(t.Context(), Asker{}, paths[0])
		if info == nil || err != nil {
			t.Fatal(info, err)
		}
		if _, err := p.OpenNAR(t.Context(), Asker{}, info); err != nil {
			t.Error(err)
		}
		far.fails = errors.New("hung up")
		if _, err := p.OpenNAR(t.Context(), Asker{}, info); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("nobody knows: %v", err)
		}
		if _, known := p.Known(t.Context(), Asker{}, paths[0]); !known {
			t.Error("forgotten without need")
		}
		far.fails = nil
		delete(far.has, paths[0])
		if _, err := p.OpenNAR(t.Context(), Asker{}, info); !errors.Is(err, ErrGone) {
			t.Errorf("deleted: %v", err)
		}
		if info, err := p.PathInfo(t.Context(), Asker{}, paths[0]); info != nil || err != nil {
			t.Errorf("still known: %v, %v", info, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestPeerAsksTogether has a hundred questions: the first goes alone, the others together, and none twice.
func TestPeerAsksTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, paths := newServer(t)
		far := &farAway{has: make(map[storepath.Path]bool)}
		for _, p := range paths[1:] {
			far.has[p] = true
		}
		log := &recorder{}
		p := OpenPeer(Asker{Log: log}, far)
		if p.Priority() != 7 || !p.Trusted() || !p.WantMassQuery() || !strings.Contains(log.text(), "unknown setting 'colour'") {
			t.Errorf("opened as %d %v %v, told %s", p.Priority(), p.Trusted(), p.WantMassQuery(), log.text())
		}
		begun := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			for i, path := range paths {
				wg.Go(func() {
					info, err := p.PathInfo(t.Context(), Asker{Log: activity.Discard{}}, path)
					if err != nil || (info != nil) != (i > 0) {
						t.Errorf("%s: %v, %v", path, info, err)
					}
				})
			}
		}
		wg.Wait()
		if took := time.Since(begun); took > 3*time.Second || far.trips > 3 {
			t.Errorf("%d trips in %v", far.trips, took)
		}
		far.trips = 0
		if info, err := p.PathInfo(t.Context(), Asker{}, paths[1]); info == nil || err != nil || far.trips > 0 {
			t.Errorf("again: %v, %v, %d trips", info, err, far.trips)
		}
		time.Sleep(2 * peerTTL * time.Second)
		if _, known := p.Known(t.Context(), Asker{}, paths[1]); known {
			t.Error("known for ever")
		}
		far.fails = errors.New("hung up")
		if _, err := p.PathInfo(t.Context(), Asker{}, paths[0]); err != far.fails {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.PathInfo(ctx, Asker{}, paths[0]); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}
