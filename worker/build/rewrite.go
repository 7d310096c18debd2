package build

import (
	"io"
	"maps"
	"slices"
	"strings"

	"nixdaemon/protocol/storepath"
)

// hashPart is a store path's hash part, or 32 other bytes that take its place.
type hashPart = [storepath.HashLen]byte

func hashPartOf(p storepath.Path) hashPart { return hashPart([]byte(p.HashPart())) }

// rewriter replaces hash parts in a stream (libstore/references.cc, RewritingSink). Close writes what is left.
type rewriter struct {
	dst   io.Writer
	rules map[hashPart]hashPart
	held  []byte // the last bytes, which could begin a hash part
	buf   []byte
}

func newRewriter(dst io.Writer, rules map[hashPart]hashPart) *rewriter {
	return &rewriter{dst: dst, rules: rules}
}

// Write replaces in what was held back together with data, and holds back what could begin a hash part.
func (r *rewriter) Write(data []byte) (int, error) {
	const keep = storepath.HashLen - 1
	r.buf = append(append(r.buf[:0], r.held...), data...)
	next := 0
	eachHashPart(r.buf, func(at int) {
		// What was replaced is not replaced again.
		if at < next {
			return
		}
		if to, ok := r.rules[hashPart(r.buf[at:])]; ok {
			copy(r.buf[at:], to[:])
			next = at + storepath.HashLen
		}
	})
	cut := max(next, len(r.buf)-keep)
	cut = min(max(cut, 0), len(r.buf))
	r.held = append(r.held[:0], r.buf[cut:]...)
	if cut == 0 {
		return len(data), nil
	}
	if _, err := r.dst.Write(r.buf[:cut]); err != nil {
		return 0, err
	}
	return len(data), nil
}

// Close writes the rest. It does not close the destination.
func (r *rewriter) Close() error {
	if len(r.held) == 0 {
		return nil
	}
	_, err := r.dst.Write(r.held)
	r.held = r.held[:0]
	return err
}

// rewriteString applies replacements one after the other in the order of what they replace
// (libutil/strings.cc, rewriteStrings).
func rewriteString(s string, rules map[string]string) string {
	if len(rules) == 0 {
		return s
	}
	for _, from := range slices.Sorted(maps.Keys(rules)) {
		if to := rules[from]; from != to {
			s = strings.ReplaceAll(s, from, to)
		}
	}
	return s
}
