package localstore

import (
	"hash/maphash"
	"slices"

	"nixdaemon/localstore/internal/fstree"
)

// nameSet are the names of a directory, as eight bytes for each: a directory may have millions. A name that is not in a
// directory of a million is taken for one that is with a chance of one in 10^13, and nobody can choose such a name, since
// each set mixes names in its own way.
type nameSet struct {
	seed maphash.Seed
	sums []uint64
}

// namesOf reads a directory.
func namesOf(d *fstree.Dir) (*nameSet, error) {
	n := &nameSet{seed: maphash.MakeSeed()}
	if err := d.EachName(func(name string) { n.sums = append(n.sums, maphash.String(n.seed, name)) }); err != nil {
		return nil, err
	}
	slices.Sort(n.sums)
	return n, nil
}

func (n *nameSet) has(name string) bool {
	_, found := slices.BinarySearch(n.sums, maphash.String(n.seed, name))
	return found
}
