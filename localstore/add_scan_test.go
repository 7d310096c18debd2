package localstore

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// mentions is a scanner for one path, by its whole name.
type mentions struct {
	of   storepath.Path
	seen bytes.Buffer
}

func (m *mentions) Write(p []byte) (int, error) { return m.seen.Write(p) }

func (m *mentions) References() []storepath.Path {
	if bytes.Contains(m.seen.Bytes(), []byte(m.of.Base())) {
		return []storepath.Path{m.of}
	}
	return nil
}

// TestAddDumpScanned: what a scanner finds is referred to, and is part of the path's name, whether or not the contents
// stay in memory.
func TestAddDumpScanned(t *testing.T) {
	for _, limit := range []int{10, 1 << 20} {
		s := open(t, func(o *Options) { o.NarBufferSize = limit })
		dep := addText(t, s, "dep", "a dependency").Path
		tree := DumpSpec{Name: "tree", Method: storepath.MethodNAR, Algo: nixhash.SHA256}
		text := DumpSpec{Name: "text", Method: storepath.MethodText, Algo: nixhash.SHA256}
		add := func(spec DumpSpec, data []byte) (storepath.Path, []storepath.Path) {
			t.Helper()
			info, err := s.AddDump(ctx, spec, bytes.NewReader(data), AddOptions{})
			if err != nil {
				t.Fatal(err)
			}
			stored, err := s.PathInfo(ctx, info.Path)
			if err != nil {
				t.Fatal(err)
			}
			return info.Path, stored.References
		}
		for _, words := range []string{"mentions " + s.Dir().Print(dep), "mentions nothing"} {
			for _, spec := range []DumpSpec{tree, text} {
				data := []byte(words)
				if spec.Name == "tree" {
					data = append(smallTree(t, words), "behind"...)
				}
				scanned, given := spec, spec
				scanned.Scan = &mentions{of: dep}
				if strings.Contains(words, dep.Base()) {
					given.References = []storepath.Path{dep}
				}
				if spec.Name == "text" && words == "mentions nothing" {
					scanned.References = []storepath.Path{dep} // what is found counts
				}
				p, refs := add(scanned, data)
				want, wantRefs := add(given, data)
				if p != want || !slices.Equal(refs, wantRefs) {
					t.Errorf("%s that %s, limit %d: got %v with %v, want %v with %v", spec.Name, words, limit, p, refs, want, wantRefs)
				}
			}
		}
	}
}
