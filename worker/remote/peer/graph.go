package peer

import (
	"context"
	"fmt"

	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// referencesFirst gives the paths in an order in which each comes after those
// of them that it refers to.
func referencesFirst(dir storepath.Dir, infos []*pathinfo.Info) ([]*pathinfo.Info, error) {
	s := sorter{dir: dir, infos: make(map[storepath.Path]*pathinfo.Info, len(infos)), state: make(map[storepath.Path]state)}
	for _, info := range infos {
		s.infos[info.Path] = info
	}
	for _, info := range infos {
		if err := s.visit(info); err != nil {
			return nil, err
		}
	}
	return s.sorted, nil
}

// state is how far a sorter is with a path.
type state uint8

const (
	unseen state = iota
	open
	placed
)

// sorter is one sorting, without recursion: references chain as deep as they
// like.
type sorter struct {
	dir    storepath.Dir
	infos  map[storepath.Path]*pathinfo.Info
	state  map[storepath.Path]state
	sorted []*pathinfo.Info
}

// step is a path on the way, and how many of its references are done.
type step struct {
	info *pathinfo.Info
	next int
}

func (s *sorter) visit(from *pathinfo.Info) error {
	if s.state[from.Path] == placed {
		return nil
	}
	s.state[from.Path] = open
	for way := []step{{info: from}}; len(way) > 0; {
		top := &way[len(way)-1]
		if top.next == len(top.info.References) {
			s.state[top.info.Path] = placed
			s.sorted = append(s.sorted, top.info)
			way = way[:len(way)-1]
			continue
		}
		ref := s.infos[top.info.References[top.next]]
		top.next++
		if ref == nil || ref == top.info || s.state[ref.Path] == placed {
			continue
		}
		if s.state[ref.Path] == open {
			return fmt.Errorf("cycle detected in the references of '%s' from '%s'", s.dir.Print(ref.Path), s.dir.Print(top.info.Path))
		}
		s.state[ref.Path] = open
		way = append(way, step{info: ref})
	}
	return nil
}

// maxClosure bounds a closure that is found by asking.
const maxClosure = 4 << 20

// walk finds a closure a level at a time.
func walk(ctx context.Context, s Store, paths []storepath.Path) ([]storepath.Path, error) {
	seen := make(map[storepath.Path]bool)
	var closure []storepath.Path
	for level := storepath.SortUnique(append([]storepath.Path{}, paths...)); len(level) > 0; {
		for _, p := range level {
			seen[p] = true
		}
		infos, err := s.PathInfos(ctx, level)
		if err != nil {
			return nil, err
		}
		if err := allThere(s.Dir(), level, infos); err != nil {
			return nil, err
		}
		closure = append(closure, level...)
		level = nil
		for _, info := range infos {
			for _, ref := range info.References {
				if !seen[ref] {
					seen[ref] = true
					level = append(level, ref)
				}
			}
		}
		if len(closure)+len(level) > maxClosure {
			return nil, fmt.Errorf("closure in '%s' has more than %d paths", s.URI(), maxClosure)
		}
	}
	return storepath.SortUnique(closure), nil
}

func allThere(dir storepath.Dir, paths []storepath.Path, infos []*pathinfo.Info) error {
	for i, p := range paths {
		if i >= len(infos) || infos[i].Path != p {
			return fmt.Errorf("path '%s' is not valid", dir.Print(p))
		}
	}
	return nil
}
