package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/session"
)

// otherBuilder is one that lets its requests be looked at while they are under way.
type otherBuilder struct {
	worker.Builder
	meanwhile func()
	results   []derivation.KeyedBuildResult
	err       error
}

func (o *otherBuilder) BuildPaths(context.Context, *session.Session, []derivation.DerivedPath, derivation.BuildMode) error {
	o.meanwhile()
	return o.err
}

func (o *otherBuilder) BuildPathsWithResults(context.Context, *session.Session, []derivation.DerivedPath, derivation.BuildMode) ([]derivation.KeyedBuildResult, error) {
	o.meanwhile()
	return o.results, o.err
}

func (o *otherBuilder) BuildDerivation(context.Context, *session.Session, storepath.Path, *derivation.BasicDerivation, derivation.BuildMode) (derivation.BuildResult, error) {
	o.meanwhile()
	return o.results[0].BuildResult, o.err
}

func (o *otherBuilder) EnsurePath(context.Context, *session.Session, storepath.Path) error {
	o.meanwhile()
	return o.err
}

func (o *otherBuilder) RepairPath(context.Context, *session.Session, storepath.Path) error {
	o.meanwhile()
	return o.err
}

func errandPath(t *testing.T, name string) storepath.Path {
	t.Helper()
	p, err := storepath.ParseBase("00000000000000000000000000000000-" + name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestErrands tells of each kind of request while it waits and when it has ended.
func TestErrands(t *testing.T) {
	a, b, file := errandPath(t, "a.drv"), errandPath(t, "b.drv"), errandPath(t, "file")
	outputs := func(drv storepath.Path) derivation.DerivedPath {
		return derivation.DerivedPath{Drv: &derivation.SingleDerivedPath{Path: drv}}
	}
	paths := []derivation.DerivedPath{outputs(a), outputs(b), outputs(a), {Path: file}}
	alice, bob := &session.Session{User: "alice", Client: 3}, &session.Session{User: "bob", Client: 4}
	var log strings.Builder
	e := newErrands("/nix/store", "unix:///there", zerolog.New(&log))
	other := &otherBuilder{}
	builder := e.noting(other)
	var seen []string
	other.meanwhile = func() {
		st := e.status()
		seen = nil
		for _, one := range st.Builds {
			seen = append(seen, fmt.Sprint(one.ID, " ", one.Drv.Name(), " ", one.State, " ", one.Reason, " ", one.Machine, " ", one.Mode, " ", one.Clients))
		}
		for _, r := range st.Requests {
			seen = append(seen, fmt.Sprint(r.ClientID, " ", r.Builds.Open, " ", r.Fetches.Open))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	good, bad := derivation.BuildResult{Status: derivation.StatusBuilt}, derivation.BuildResult{Status: derivation.StatusMiscFailure, ErrorMsg: "it is broken\nlog of secrets"}
	for _, c := range []struct {
		name    string
		results []derivation.BuildResult
		err     error
		do      func() error
		seen    []string
		line    string
	}{
		{"paths", nil, nil, func() error { return builder.BuildPaths(t.Context(), alice, paths, derivation.BuildCheck) },
			[]string{"1 a.drv waiting another daemon unix:///there 2 [{alice 3}]", "2 b.drv waiting another daemon unix:///there 2 [{alice 3}]", "{alice 3} 3 1"},
			"build of '/nix/store/00000000000000000000000000000000-a.drv' and 3 more for alice by 'unix:///there' ended after X: done"},
		{"results", []derivation.BuildResult{good, bad, bad, good}, nil, func() error {
			_, err := builder.BuildPathsWithResults(t.Context(), alice, paths, derivation.BuildNormal)
			return err
		}, []string{"3 a.drv waiting another daemon unix:///there 0 [{alice 3}]", "4 b.drv waiting another daemon unix:///there 0 [{alice 3}]", "{alice 3} 3 1"},
			"build of '/nix/store/00000000000000000000000000000000-a.drv' and 3 more for alice by 'unix:///there' ended after X: failed: 2 failed, the first: it is broken"},
		{"derivation", []derivation.BuildResult{good}, nil, func() error {
			_, err := builder.BuildDerivation(t.Context(), bob, a, nil, derivation.BuildNormal)
			return err
		}, []string{"5 a.drv waiting another daemon unix:///there 0 [{bob 4}]", "{bob 4} 1 0"},
			"build of '/nix/store/00000000000000000000000000000000-a.drv' for bob by 'unix:///there' ended after X: done"},
		{"ensure", nil, errors.New("no such thing"), func() error { return builder.EnsurePath(t.Context(), bob, file) }, []string{"{bob 4} 0 1"},
			"build of a path for bob by 'unix:///there' ended after X: failed: no such thing"},
		{"repair", nil, context.Canceled, func() error { return builder.RepairPath(ctx, bob, file) }, []string{"{bob 4} 0 1"},
			"build of a path for bob by 'unix:///there' ended after X: given up: interrupted by the user"},
	} {
		log.Reset()
		other.results, other.err = nil, c.err
		for i, r := range c.results {
			other.results = append(other.results, derivation.KeyedBuildResult{Path: paths[i], BuildResult: r})
		}
		if err := c.do(); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.seen, seen); diff != "" {
			t.Errorf("%s is seen as (-want +got)\n%s", c.name, diff)
		}
		var l struct{ Message, Event, User string }
		if err := json.Unmarshal([]byte(log.String()), &l); err != nil {
			t.Fatal(err)
		}
		before, rest, _ := strings.Cut(l.Message, "ended after ")
		_, outcome, _ := strings.Cut(rest, ": ")
		if got := before + "ended after X: " + outcome; got != c.line || l.Event != "build-request" {
			t.Errorf("%s: got %q, want %q", c.name, got, c.line)
		}
	}
	if st := e.status(); len(st.Builds)+len(st.Requests) != 0 {
		t.Errorf("left: %+v", st)
	}
}

// TestErrandsShared: what several wait for is listed once, and of what one waits for no more than is bearable.
func TestErrandsShared(t *testing.T) {
	e := newErrands("/nix/store", "there", zerolog.Nop())
	var many []derivation.DerivedPath
	for i := range 3 * mostErrands {
		many = append(many, derivation.DerivedPath{Drv: &derivation.SingleDerivedPath{Path: errandPath(t, fmt.Sprintf("%d.drv", i))}})
	}
	first := e.begin(&session.Session{User: "alice"}, many, derivation.BuildNormal)
	second := e.begin(&session.Session{User: "bob"}, many[:1], derivation.BuildNormal)
	st := e.status()
	if len(st.Builds) != mostErrands || len(st.Requests) != 2 || st.Requests[0].Builds.Open != 3*mostErrands {
		t.Errorf("%d builds, %+v", len(st.Builds), st.Requests)
	}
	if c := st.Builds[0].Clients; len(c) != 2 || c[0].User != "alice" || c[1].User != "bob" {
		t.Errorf("the first is wanted by %v", c)
	}
	e.end(t.Context(), first, 0, "", nil)
	e.end(t.Context(), second, 0, "", nil)
}
