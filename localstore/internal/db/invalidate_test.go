package db

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fillChain registers paths of which each refers to itself and to the one before.
func fillChain(t testing.TB, db *DB, n int) []string {
	t.Helper()
	paths := testPaths(n)
	rows := make([]PathRow, n)
	for i, p := range paths {
		rows[i] = PathRow{Path: p, Hash: "sha256:0", NarSize: 1, References: []string{p, paths[max(0, i-1)]}}
	}
	register(t, db, rows...)
	return paths
}

// Many at once go in any order, unless somebody else refers to one: then none goes, and it is told which.
func TestInvalidateAll(t *testing.T) {
	for _, n := range []int{1, 2, invalidatedAtOnce, invalidatedAtOnce + 1, 3*invalidatedAtOnce + 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			db := openTest(t, testOptions(t))
			all := fillChain(t, db, n+2)
			var found int
			invalidate := func(paths []string) error {
				return db.Write(t.Context(), func(tx *Tx) (err error) { found, err = tx.InvalidateAll(paths); return err })
			}
			var used *ReferrersError
			if err := invalidate(all[:n+1]); !errors.As(err, &used) {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff(&ReferrersError{Path: all[n], Referrers: all[n+1:]}, used); diff != "" {
				t.Error(diff)
			}
			left := func(want []string) {
				t.Helper()
				got, err := db.AllPaths(t.Context())
				must(t, err)
				if diff := cmp.Diff(want, got, ignoreOrder); diff != "" {
					t.Error(diff)
				}
			}
			left(all)
			must(t, invalidate(append([]string{"/nix/store/none"}, all[2:]...)))
			if found != n {
				t.Errorf("%d found", found)
			}
			left(all[:2])
			g, err := db.LoadGraph(t.Context(), GraphOptions{Derivers: true, Outputs: true})
			must(t, err)
			if len(g.Refs) != 3 {
				t.Errorf("references are left: %v", g.Refs)
			}
		})
	}
}
