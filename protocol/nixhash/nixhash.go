// Package nixhash holds digests as Nix writes them: an [Algo] names the
// function, a [Hash] is one digest of it, and an [Encoding] is one of the four
// texts in which that digest appears: base16, nix32, base64 and SRI.
//
// A [Hash] is a small comparable value; the zero Hash means "no hash".
package nixhash

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"lukechampine.com/blake3"
)

// Algo is a hash function. The zero Algo names none.
type Algo uint8

// The algorithms that upstream knows (libutil/hash.cc).
const (
	MD5 Algo = iota + 1
	SHA1
	SHA256
	SHA512
	// BLAKE3 needs the experimental feature blake3-hashes.
	BLAKE3
)

// maxSize is the longest digest in bytes, that of SHA-512.
const maxSize = 64

// maxText is the longest text of a hash: "sha512:" and its digits.
const maxText = len("sha512:") + 2*maxSize

// ParseAlgo reads an algorithm's name. The error's text is upstream's
// (libutil/hash.cc, parseHashAlgo).
func ParseAlgo(s string) (Algo, error) {
	switch s {
	case "md5":
		return MD5, nil
	case "sha1":
		return SHA1, nil
	case "sha256":
		return SHA256, nil
	case "sha512":
		return SHA512, nil
	case "blake3":
		return BLAKE3, nil
	}
	return 0, fmt.Errorf("unknown hash algorithm '%s', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'", s)
}

// String gives the name as Nix writes it, or "" for the zero Algo.
func (a Algo) String() string {
	switch a {
	case MD5:
		return "md5"
	case SHA1:
		return "sha1"
	case SHA256:
		return "sha256"
	case SHA512:
		return "sha512"
	case BLAKE3:
		return "blake3"
	}
	return ""
}

// Size is the digest's length in bytes, 0 for the zero Algo.
func (a Algo) Size() int {
	switch a {
	case MD5:
		return md5.Size
	case SHA1:
		return sha1.Size
	case SHA256, BLAKE3:
		return sha256.Size
	case SHA512:
		return sha512.Size
	}
	return 0
}

// New starts a computation. It panics for the zero Algo.
func (a Algo) New() hash.Hash {
	switch a {
	case MD5:
		return md5.New()
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	case SHA512:
		return sha512.New()
	case BLAKE3:
		return blake3.New(32, nil)
	}
	panic("nixhash: New of no algorithm")
}

// Hash is one digest. Hashes compare with ==.
type Hash struct {
	algo   Algo
	digest [maxSize]byte
}

// New makes a Hash of a digest. The digest's length must be the algorithm's.
func New(algo Algo, digest []byte) (Hash, error) {
	if algo.Size() == 0 || len(digest) != algo.Size() {
		return Hash{}, fmt.Errorf("hash digest of %d bytes does not fit algorithm '%s'", len(digest), algo)
	}
	h := Hash{algo: algo}
	copy(h.digest[:], digest)
	return h, nil
}

// FromSum takes the digest of a running computation that algo.New started.
func FromSum(algo Algo, running hash.Hash) Hash {
	h := Hash{algo: algo}
	running.Sum(h.digest[:0])
	return h
}

// Of hashes a string.
func Of(algo Algo, s string) Hash {
	if algo == SHA256 {
		h := Hash{algo: SHA256}
		sum := sha256.Sum256([]byte(s))
		copy(h.digest[:], sum[:])
		return h
	}
	running := algo.New()
	running.Write([]byte(s))
	return FromSum(algo, running)
}

// Algo names the function that made the digest.
func (h Hash) Algo() Algo { return h.algo }

// IsZero tells whether this is no hash at all.
func (h Hash) IsZero() bool { return h.algo == 0 }

// Digest gives the raw bytes, a copy.
func (h Hash) Digest() []byte { return append([]byte(nil), h.digest[:h.algo.Size()]...) }

// Compress folds the digest to n bytes by exclusive or, as store paths do
// (libutil/hash.cc, compressHash).
func (h Hash) Compress(n int) []byte {
	out := make([]byte, n)
	for i, b := range h.digest[:h.algo.Size()] {
		out[i%n] ^= b
	}
	return out
}

// String is the form of the database's users and messages: "sha256:<nix32>".
func (h Hash) String() string { return h.Format(Nix32, true) }

// SRI is the form "sha256-<base64>".
func (h Hash) SRI() string { return h.Format(SRI, true) }

// Base16 is the bare hexadecimal digest, without the algorithm's name.
func (h Hash) Base16() string { return h.Format(Base16, false) }

// Nix32 is the bare digest in Nix's base 32, without the algorithm's name.
func (h Hash) Nix32() string { return h.Format(Nix32, false) }

// Format writes the hash. withAlgo puts "<algo>:" before it; SRI always
// carries its "<algo>-".
func (h Hash) Format(enc Encoding, withAlgo bool) string {
	if h.IsZero() {
		return ""
	}
	var room [maxText]byte
	return string(h.Append(room[:0], enc, withAlgo))
}

// Append appends what Format gives to dst.
func (h Hash) Append(dst []byte, enc Encoding, withAlgo bool) []byte {
	if h.IsZero() {
		return dst
	}
	if withAlgo || enc == SRI {
		dst = append(dst, h.algo.String()...)
		mark := byte(':')
		if enc == SRI {
			mark = '-'
		}
		dst = append(dst, mark)
	}
	return enc.append(dst, h.digest[:h.algo.Size()])
}
