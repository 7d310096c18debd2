package gc

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/localstore"
	"nixdaemon/localstore/localstoretest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

var _ Overlay = localstore.Upper{}

// layers is a store on what stands for an overlay: its directory has links to the files below, and what is above lies in
// the upper layer, too.
type layers struct {
	*localstore.Store
	upper    string
	roots    string
	paths    map[string]storepath.Path
	remounts int
}

// newLayers has low, mid and alone below, where mid refers to low, and top above, which refers to mid. What is called both
// is in both layers.
func newLayers(t *testing.T) *layers {
	o := localstoretest.Options(t)
	top := filepath.Dir(string(o.StoreDir))
	below := o
	below.RealDir, below.StateDir, below.LogDir = top+"/lower/store", top+"/lower/var", top+"/lower/log"
	lower, err := localstore.Open(t.Context(), below)
	if err != nil {
		t.Fatal(err)
	}
	l := &layers{upper: top + "/upper", roots: o.StateDir + "/gcroots"}
	l.paths = localstoretest.Load(t, lower, "-- low --\nlow\n-- mid low --\n@low@\n-- alone --\nalone\n-- both --\nboth\n")
	o.Overlay = &localstore.Overlay{Lower: lower.AsLower(), UpperLayer: l.upper, Remount: func(context.Context, string) error {
		l.remounts++
		return nil
	}}
	l.Store = localstoretest.New(t, func(own *localstore.Options) { *own = o })
	if err := os.Mkdir(l.upper, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.paths {
		if err := os.Link(lower.RealPath(p), l.RealPath(p)); err != nil {
			t.Fatal(err)
		}
	}
	spec := localstore.DumpSpec{Name: "top", Method: storepath.MethodText, Algo: nixhash.SHA256, References: []storepath.Path{l.paths["mid"]}}
	info, err := l.AddDump(t.Context(), spec, strings.NewReader("top"), localstore.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.paths["top"] = info.Path
	for _, name := range []string{"top", "both"} {
		if err := os.WriteFile(filepath.Join(l.upper, l.paths[name].Base()), []byte("text"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// collect gives the names of what was found or deleted.
func (l *layers) collect(t *testing.T, req Request) ([]string, error) {
	t.Helper()
	u, _ := l.Upper()
	res, err := New(Options{Store: u}).Collect(t.Context(), req)
	var names []string
	for _, path := range res.Paths {
		_, name, _ := strings.Cut(filepath.Base(path), "-")
		names = append(names, name)
	}
	slices.Sort(names)
	return names, err
}

func (l *layers) rows(t *testing.T) []string {
	t.Helper()
	paths, err := l.AllValidPaths(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range paths {
		names = append(names, p.Name())
	}
	slices.Sort(names)
	return names
}

// TestCollectOverlay collects what is in the upper layer alone, as if it were all.
func TestCollectOverlay(t *testing.T) {
	l := newLayers(t)
	root := filepath.Join(l.roots, "r")
	if err := os.Symlink(l.RealPath(l.paths["mid"]), root); err != nil {
		t.Fatal(err)
	}
	all := []string{"alone", "both", "low", "mid", "top"}
	for _, step := range []struct {
		action Action
		want   []string
		rows   []string
	}{
		{ReturnLive, []string{"low", "mid"}, all},
		{ReturnDead, []string{"alone", "both", "top"}, all},
		{DeleteDead, []string{"alone", "both", "top"}, []string{"low", "mid"}},
	} {
		got, err := l.collect(t, wholeStore(step.action))
		if diff := cmp.Diff(step.want, got); diff != "" || err != nil {
			t.Errorf("action %d: %v (-want +got):\n%s", step.action, err, diff)
		}
		if diff := cmp.Diff(step.rows, l.rows(t)); diff != "" {
			t.Errorf("rows after action %d (-want +got):\n%s", step.action, diff)
		}
	}
	if _, err := os.Lstat(l.RealPath(l.paths["top"])); err == nil {
		t.Error("what is above is still there")
	}
	if _, err := os.Lstat(filepath.Join(l.upper, l.paths["both"].Base())); err == nil || l.remounts != 1 {
		t.Errorf("what is in both layers: %v; mounted %d times", err, l.remounts)
	}
	for _, name := range []string{"alone", "both", "low", "mid"} {
		if valid, err := l.IsValid(t.Context(), l.paths[name]); !valid || err != nil {
			t.Errorf("%s of the lower store: %v, %v", name, valid, err)
		}
		if _, err := os.Lstat(l.RealPath(l.paths[name])); err != nil {
			t.Error(err)
		}
	}
}

// TestDeleteSpecificFromOverlay counts what refers to a path above, and not what does below.
func TestDeleteSpecificFromOverlay(t *testing.T) {
	l := newLayers(t)
	specific := func(name string) Request {
		return Request{Action: DeleteSpecific, Paths: []storepath.Path{l.paths[name]}, MaxFreed: 1<<64 - 1}
	}
	if got, err := l.collect(t, specific("mid")); !errors.As(err, new(*AliveError)) {
		t.Error(got, err)
	}
	for _, name := range []string{"top", "mid", "low", "alone"} {
		if got, err := l.collect(t, specific(name)); err != nil || !slices.Equal(got, []string{name}) {
			t.Error(name, got, err)
		}
	}
	if got := l.rows(t); len(got) != 0 {
		t.Error(got)
	}
}
