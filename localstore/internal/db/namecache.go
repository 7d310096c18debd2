package db

import "zombiezen.com/go/sqlite"

// maxNames bounds a nameCache: about four megabytes when full.
const maxNames = 32768

// nameCache remembers the paths of row numbers for one reading connection, since most paths refer to the same few.
// Numbers are never used twice, so only a hand at the tables could make an entry wrong;
// the cache is dropped whenever another process has written.
type nameCache struct {
	generation uint64
	ids        []int64 // scratch space
	paths      map[int64]string
}

// references returns the paths that the row refers to.
func (n *nameCache) references(c *conn, generation uint64, id int64) ([]string, error) {
	if n.paths == nil || n.generation != generation || len(n.paths) >= maxNames {
		n.paths, n.generation = make(map[int64]string), generation
	}
	n.ids = n.ids[:0]
	err := c.each(stmtQueryReferenceIDs, id, func(s *sqlite.Stmt) error {
		n.ids = append(n.ids, s.ColumnInt64(0))
		return nil
	})
	if err != nil || len(n.ids) == 0 {
		return nil, err
	}
	refs := make([]string, 0, len(n.ids))
	for _, id := range n.ids {
		path, known := n.paths[id]
		if !known {
			found, err := c.strings(stmtQueryName, id)
			if err != nil {
				return nil, err
			}
			if len(found) == 0 {
				continue // a dangling reference, which only switched-off foreign keys can leave
			}
			path = found[0]
			n.paths[id] = path
		}
		refs = append(refs, path)
	}
	return refs, nil
}
