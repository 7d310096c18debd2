package db

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLastIDNeverFalls, even when the last rows are removed.
func TestLastIDNeverFalls(t *testing.T) {
	ctx := t.Context()
	db := openTest(t, testOptions(t))
	if id, err := db.LastID(ctx); id != 0 || err != nil {
		t.Error("new database:", id, err)
	}
	paths := fillPaths(t, db, 3, 0)
	if err := db.Write(ctx, func(tx *Tx) error { _, err := tx.Invalidate(paths[2]); return err }); err != nil {
		t.Fatal(err)
	}
	if id, err := db.LastID(ctx); id != 3 || err != nil {
		t.Error(id, err)
	}
	for id, want := range map[int64]string{2: paths[1], 3: "", 4: ""} {
		if got, err := db.PathOf(ctx, id); got != want || err != nil {
			t.Errorf("row %d: %q, %v; want %q", id, got, err, want)
		}
	}
	register(t, db, PathRow{Path: paths[2], Hash: testHash})
	if id, err := db.LastID(ctx); id != 4 || err != nil {
		t.Error(id, err)
	}
	if inode, _ := db.Inode(); inode == 0 {
		t.Error("no inode")
	}
}

func TestRowsBeyond(t *testing.T) {
	db := openTest(t, testOptions(t))
	paths := fillPaths(t, db, 5, 1)
	for _, test := range []struct {
		id    int64
		limit int
		want  []int64
	}{{0, 10, []int64{1, 2, 3, 4, 5}}, {1, 2, []int64{2, 3}}, {5, 10, nil}} {
		rows, err := db.RowsBeyond(t.Context(), test.id, test.limit)
		if err != nil {
			t.Fatal(err)
		}
		var ids []int64
		for _, row := range rows {
			ids = append(ids, row.ID)
			if row.Path != paths[row.ID-1] || row.Hash != testHash || row.NarSize != 1000 {
				t.Errorf("%+v", row)
			}
		}
		if !slices.Equal(ids, test.want) {
			t.Errorf("beyond %d: %v, want %v", test.id, ids, test.want)
		}
		names, err := db.NamesBeyond(t.Context(), test.id, test.limit)
		if err != nil || len(names) != len(rows) {
			t.Errorf("names beyond %d: %v, %v", test.id, names, err)
		}
		for i, name := range names {
			if want := (PathRow{ID: rows[i].ID, Path: rows[i].Path}); !cmp.Equal(name, want) {
				t.Errorf("beyond %d: %s", test.id, cmp.Diff(want, name))
			}
		}
	}
}

func TestCountPaths(t *testing.T) {
	db := openTest(t, testOptions(t))
	for _, want := range []uint64{0, 5} {
		if n, err := db.CountPaths(t.Context()); err != nil || n != want {
			t.Errorf("%d paths, %v, want %d", n, err, want)
		}
		fillPaths(t, db, 5, 0)
	}
}

func TestInvalidateWithReferrers(t *testing.T) {
	ctx := t.Context()
	db := openTest(t, testOptions(t))
	p := fillPaths(t, db, 6, 0)
	// 2 refers to 1 and 3 to 2; 4 and 5 refer to each other, and 4 to 1.
	register(t, db, PathRow{Path: p[2], Hash: testHash, References: []string{p[1]}})
	register(t, db, PathRow{Path: p[3], Hash: testHash, References: []string{p[2], p[0]}})
	register(t, db, PathRow{Path: p[4], Hash: testHash, References: []string{p[5], p[1]}})
	register(t, db, PathRow{Path: p[5], Hash: testHash, References: []string{p[4], p[5]}})
	var removed []string
	invalidate := func(rows ...PathRow) {
		t.Helper()
		err := db.Write(ctx, func(tx *Tx) (err error) { removed, err = tx.InvalidateWithReferrers(rows); return err })
		if err != nil {
			t.Fatal(err)
		}
	}
	invalidate(PathRow{ID: 7, Path: p[1]}, PathRow{ID: 1, Path: "/nix/store/unknown"})
	if len(removed) != 0 {
		t.Error("removed another row of the same path, or none at all:", removed)
	}
	invalidate(PathRow{ID: 2, Path: p[1]})
	if len(removed) != 5 || removed[0] != p[1] {
		t.Error(removed)
	}
	if left, err := db.AllPaths(ctx); !slices.Equal(left, p[:1]) || err != nil {
		t.Error(left, err)
	}
}

// TestStillThere: rows that went, that came back with another number, and that never were.
func TestStillThere(t *testing.T) {
	ctx := t.Context()
	db := openTest(t, testOptions(t))
	paths := fillPaths(t, db, 6, 0)
	rows, err := db.RowsBeyond(ctx, 0, 10)
	if err != nil || len(rows) != len(paths) {
		t.Fatal(rows, err)
	}
	for _, gone := range []string{paths[1], paths[4]} {
		if err := db.Write(ctx, func(tx *Tx) error { _, err := tx.Invalidate(gone); return err }); err != nil {
			t.Fatal(err)
		}
	}
	register(t, db, PathRow{Path: paths[4], Hash: testHash})
	rows[3].Path = storePath(9, "another")
	for _, test := range []struct{ rows, want []int }{
		{[]int{0, 1, 2, 3, 4, 5}, []int{0, 2, 5}},
		{[]int{1, 5}, []int{5}}, // with others between
		{[]int{1}, nil},
		{nil, nil},
	} {
		var asked []*PathRow
		for _, i := range test.rows {
			asked = append(asked, &rows[i])
		}
		there, err := db.StillThere(ctx, asked)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for k, i := range test.rows {
			if there[k] {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("of %v there are %v, want %v", test.rows, got, test.want)
		}
	}
}
