package localstore

import (
	"hash/maphash"
	"math/bits"
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
	_, found := find(n.sums, maphash.String(n.seed, name))
	return found
}

// find looks for a number among sorted ones that are spread evenly, as sums are: where it would be if they were so
// exactly, then by as much further as the number there is off, and from there step by step. Halving touches memory in
// as many places as there are halves.
func find(sorted []uint64, wanted uint64) (at int, found bool) {
	size := uint64(len(sorted))
	if size == 0 {
		return 0, false
	}
	guess, _ := bits.Mul64(wanted, size)
	if here := sorted[guess]; here < wanted {
		off, _ := bits.Mul64(wanted-here, size)
		guess = min(guess+off, size-1)
	} else {
		off, _ := bits.Mul64(here-wanted, size)
		guess -= min(off, guess)
	}
	at = int(guess)
	for at < len(sorted) && sorted[at] < wanted {
		at++
	}
	for at > 0 && sorted[at-1] >= wanted {
		at--
	}
	return at, at < len(sorted) && sorted[at] == wanted
}
