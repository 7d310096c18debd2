package nixhash

import (
	"fmt"
	"strings"
)

// BadHashError says why a text is no hash. Its texts are upstream's
// (libutil/hash.cc).
type BadHashError struct{ text string }

func (e *BadHashError) Error() string { return e.text }

func badHash(format string, args ...any) error {
	return &BadHashError{fmt.Sprintf(format, args...)}
}

// Parse reads a hash that names its algorithm: "<algo>:<digest>" with the
// digest in base16, nix32 or base64 (told apart by length), or SRI.
func Parse(s string) (Hash, error) {
	name, digest, sri, prefixed := cutAlgo(s)
	if !prefixed {
		return Hash{}, badHash("hash '%s' does not include a type", s)
	}
	algo, err := ParseAlgo(name)
	if err != nil {
		return Hash{}, err
	}
	return parseDigest(digest, algo, sri)
}

// ParseAny reads a hash whose algorithm is known from elsewhere; a prefix is
// accepted when it names the same one. The zero Algo accepts any prefix
// (libutil/hash.cc, Hash::parseAny).
func ParseAny(s string, algo Algo) (Hash, error) {
	name, digest, sri, prefixed := cutAlgo(s)
	switch {
	case !prefixed && algo == 0:
		return Hash{}, badHash("hash '%s' does not include a type, nor is the type otherwise known from context", s)
	case !prefixed:
		return parseDigest(s, algo, false)
	}
	named, err := ParseAlgo(name)
	if err != nil {
		return Hash{}, err
	}
	if algo != 0 && named != algo {
		return Hash{}, badHash("hash '%s' should have type '%s'", s, algo)
	}
	return parseDigest(digest, named, sri)
}

// ParseUnprefixed reads a bare digest of a known algorithm in base16, nix32 or
// base64, told apart by length (libutil/hash.cc, parseNonSRIUnprefixed).
func ParseUnprefixed(s string, algo Algo) (Hash, error) { return parseDigest(s, algo, false) }

// ParseSRI reads "<algo>-<base64>" and nothing else.
func ParseSRI(s string) (Hash, error) {
	name, digest, ok := strings.Cut(s, "-")
	if !ok {
		return Hash{}, badHash("hash '%s' is not SRI", s)
	}
	algo, err := ParseAlgo(name)
	if err != nil {
		return Hash{}, err
	}
	return parseDigest(digest, algo, true)
}

// cutAlgo splits off what stands before the first colon or, if there is none,
// before the first dash.
func cutAlgo(s string) (name, digest string, sri, ok bool) {
	if name, digest, ok = strings.Cut(s, ":"); ok {
		return name, digest, false, true
	}
	name, digest, ok = strings.Cut(s, "-")
	return name, digest, true, ok
}

func parseDigest(s string, algo Algo, sri bool) (Hash, error) {
	h := Hash{algo: algo}
	digest := h.digest[:algo.Size()]
	var n int
	var form string
	switch {
	case algo == 0:
		return Hash{}, badHash("hash '%s' does not include a type", s)
	case sri:
		form, n = "SRI", decodeBase64(digest, s)
	case len(s) == base16Len(len(digest)):
		form, n = "base16", decodeBase16(digest, s)
	case len(s) == Nix32Len(len(digest)):
		form, n = "nix32", decodeNix32(digest, s)
	case len(s) == base64Len(len(digest)):
		form, n = "Base64", decodeBase64(digest, s)
	default:
		return Hash{}, badHash("hash '%s' has wrong length for hash algorithm '%s'", s, algo)
	}
	// Upstream swallows the reason that a digit is wrong and so finds that
	// nothing was decoded.
	if n != len(digest) {
		return Hash{}, badHash("invalid %s hash '%s', length %d != expected length %d", form, s, n, len(digest))
	}
	return h, nil
}
