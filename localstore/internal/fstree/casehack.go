package fstree

import (
	"fmt"
	"strconv"
	"strings"
)

// caseHackSuffix begins what is appended to a name that would meet another one on a case-folding disk.
const caseHackSuffix = "~nix~case~hack~"

// caseNames counts, by the folded name, the renamed entries of one directory. The zero value is ready.
type caseNames struct {
	seen map[string]*caseName
}

type caseName struct {
	name  string
	count int
}

// rename gives the name that an entry gets on disk.
func (c *caseNames) rename(name string) (string, error) {
	if c.seen == nil {
		c.seen = make(map[string]*caseName)
	}
	known := c.seen[foldCase(name)]
	if known == nil {
		c.seen[foldCase(name)] = &caseName{name: name}
		return name, nil
	}
	known.count++
	hacked := name + caseHackSuffix + strconv.Itoa(known.count)
	if other := c.seen[foldCase(hacked)]; other != nil {
		return "", fmt.Errorf("NAR contains file name '%s' that collides with case-hacked file name '%s'", name, other.name)
	}
	return hacked, nil
}

// foldCase folds ASCII letters only, as strcasecmp in the C locale.
func foldCase(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// undoCaseHack gives the name that an entry has in an archive.
func undoCaseHack(name string) string {
	before, _, _ := strings.Cut(name, caseHackSuffix)
	return before
}
