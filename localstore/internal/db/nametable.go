package db

import (
	"hash/maphash"
	"strings"

	"zombiezen.com/go/sqlite"

	"nixdaemon/protocol/storepath"
)

// baseName is the last component of a path.
func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// hashPart is what a store path's base name begins with; of anything else it is the whole.
func hashPart(base string) string { return base[:min(len(base), storepath.HashLen)] }

// nameTable finds nodes by their hash parts. It holds no texts, so that the collector of memory has nothing to follow
// in it: who looks something up compares the texts of the candidates.
type nameTable struct {
	seed maphash.Seed
	// slots have the upper half of a hash and, in the lower, a node's number plus one; 0 is free. There are a power of
	// two of them, always some free.
	slots []uint64
}

// reset makes room for so many nodes.
func (t *nameTable) reset(nodes int) {
	size := 8
	for size < nodes+nodes/2 {
		size *= 2
	}
	t.seed, t.slots = maphash.MakeSeed(), make([]uint64, size)
}

func (t *nameTable) add(key string, node int32) {
	sum := maphash.String(t.seed, key)
	at := int(sum & uint64(len(t.slots)-1))
	for t.slots[at] != 0 {
		at = (at + 1) & (len(t.slots) - 1)
	}
	t.slots[at] = sum&^(1<<32-1) | uint64(uint32(node)+1)
}

// each calls visit for all nodes that were added with the key, and perhaps others, until it returns false.
func (t *nameTable) each(key string, visit func(node int32) bool) {
	if len(t.slots) == 0 {
		return
	}
	sum := maphash.String(t.seed, key)
	for at := int(sum & uint64(len(t.slots)-1)); t.slots[at] != 0; at = (at + 1) & (len(t.slots) - 1) {
		if slot := t.slots[at]; slot>>32 == sum>>32 && !visit(int32(uint32(slot)-1)) {
			return
		}
	}
}

// textArena holds texts in few allocations.
type textArena struct {
	chunk strings.Builder
	buf   []byte
}

const arenaChunk = 256 << 10

// column keeps the text of a column.
func (a *textArena) column(s *sqlite.Stmt, column int) string {
	a.buf = readColumn(s, column, a.buf)
	if a.chunk.Cap()-a.chunk.Len() < len(a.buf) {
		a.chunk.Reset()
		a.chunk.Grow(max(arenaChunk, len(a.buf)))
	}
	start := a.chunk.Len()
	a.chunk.Write(a.buf)
	return a.chunk.String()[start:]
}

// readColumn reads a column's text into buf, or a larger one.
func readColumn(s *sqlite.Stmt, column int, buf []byte) []byte {
	if n := s.ColumnLen(column); n > cap(buf) {
		buf = make([]byte, n+n/2)
	}
	return buf[:s.ColumnBytes(column, buf[:cap(buf)])]
}
