package localstoretest

import (
	"context"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"nixdaemon/localstore"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// Load adds the files of a txtar archive as texts, in their order, and gives their paths by name. A file's header is
// its name and the names of earlier files that it refers to; in its content "@name@" stands for the path of one.
//
//	-- libc --
//	the library
//	-- hello libc --
//	uses @libc@
func Load(t testing.TB, s *localstore.Store, fixture string) map[string]storepath.Path {
	t.Helper()
	paths := make(map[string]storepath.Path)
	for _, f := range txtar.Parse([]byte(fixture)).Files {
		fields := strings.Fields(f.Name)
		var refs []storepath.Path
		text := string(f.Data)
		for _, name := range fields[1:] {
			p, ok := paths[name]
			if !ok {
				t.Fatalf("fixture: %s refers to %s, which does not come before it", fields[0], name)
			}
			refs = append(refs, p)
			text = strings.ReplaceAll(text, "@"+name+"@", s.Dir().Print(p))
		}
		spec := localstore.DumpSpec{
			Name: fields[0], Method: storepath.MethodText, Algo: nixhash.SHA256, References: storepath.SortUnique(refs),
		}
		info, err := s.AddDump(context.Background(), spec, strings.NewReader(text), localstore.AddOptions{})
		if err != nil {
			t.Fatalf("fixture: add %s: %v", fields[0], err)
		}
		paths[fields[0]] = info.Path
	}
	return paths
}
