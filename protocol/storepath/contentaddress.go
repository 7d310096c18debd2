package storepath

import (
	"fmt"
	"strings"

	"nixdaemon/protocol/nixhash"
)

// Method says what of a store object is hashed for its content address.
type Method uint8

// The methods (libstore/content-address.hh, ContentAddressMethod).
const (
	// MethodFlat hashes the bytes of one regular file.
	MethodFlat Method = iota + 1
	// MethodNAR hashes the NAR of a tree ("recursive").
	MethodNAR
	// MethodText hashes a regular file that may refer to other paths.
	MethodText
	// MethodGit hashes a tree as git does (experimental feature git-hashing).
	MethodGit
)

// Prefix is the method's mark before an algorithm's name: "", "r:", "text:"
// or "git:".
func (m Method) Prefix() string {
	switch m {
	case MethodNAR:
		return "r:"
	case MethodText:
		return "text:"
	case MethodGit:
		return "git:"
	}
	return ""
}

// ParseMethodAlgo reads a derivation output's "[r:|text:|git:]<algo>".
func ParseMethodAlgo(s string) (Method, nixhash.Algo, error) {
	method := MethodFlat
	for _, m := range []Method{MethodNAR, MethodText, MethodGit} {
		if rest, ok := strings.CutPrefix(s, m.Prefix()); ok {
			method, s = m, rest
			break
		}
	}
	algo, err := nixhash.ParseAlgo(s)
	return method, algo, err
}

// ParseCAMethod reads the wire's "text:<algo>" or "fixed:[r:|git:]<algo>"
// (libstore/content-address.cc, ContentAddressMethod::parseWithAlgo).
func ParseCAMethod(s string) (Method, nixhash.Algo, error) {
	// Upstream reads it as the beginning of a content address.
	method, algo, _, err := cutMethodAlgo(s + ":")
	return method, algo, err
}

// PrintCAMethod writes what ParseCAMethod reads.
func PrintCAMethod(m Method, algo nixhash.Algo) string { return m.caPrefix() + algo.String() }

func (m Method) caPrefix() string {
	if m == MethodText {
		return "text:"
	}
	return "fixed:" + m.Prefix()
}

func cutMethod(s string) (Method, string, error) {
	prefix, rest, ok := strings.Cut(s, ":")
	if !ok {
		return 0, "", fmt.Errorf("not a content address because it is not in the form '<prefix>:<rest>': %s", s)
	}
	switch prefix {
	case "text":
		return MethodText, rest, nil
	case "fixed":
		if after, ok := strings.CutPrefix(rest, "r:"); ok {
			return MethodNAR, after, nil
		}
		if after, ok := strings.CutPrefix(rest, "git:"); ok {
			return MethodGit, after, nil
		}
		return MethodFlat, rest, nil
	}
	return 0, "", fmt.Errorf("content address prefix '%s' is unrecognized. Recogonized prefixes are 'text' or 'fixed'", prefix)
}

// ContentAddress is a method and the hash that it gave. The zero value means
// that a path is not content-addressed.
type ContentAddress struct {
	Method Method
	Hash   nixhash.Hash
}

// ParseContentAddress reads "text:<algo>:<digest>" or
// "fixed:[r:|git:]<algo>:<digest>"; "" is the zero ContentAddress.
func ParseContentAddress(s string) (ContentAddress, error) {
	if s == "" {
		return ContentAddress{}, nil
	}
	method, algo, digest, err := cutMethodAlgo(s)
	if err != nil {
		return ContentAddress{}, err
	}
	h, err := nixhash.ParseUnprefixed(digest, algo)
	if err != nil {
		return ContentAddress{}, err
	}
	return ContentAddress{Method: method, Hash: h}, nil
}

// cutMethodAlgo splits off what stands before the digest.
func cutMethodAlgo(s string) (Method, nixhash.Algo, string, error) {
	method, rest, err := cutMethod(s)
	if err != nil {
		return 0, 0, "", err
	}
	name, digest, ok := strings.Cut(rest, ":")
	if !ok {
		return 0, 0, "", fmt.Errorf("content address hash must be in form '<algo>:<hash>', but found: %s", s)
	}
	algo, err := nixhash.ParseAlgo(name)
	return method, algo, digest, err
}

// IsZero tells whether there is no content address.
func (ca ContentAddress) IsZero() bool { return ca.Method == 0 }

// String writes what ParseContentAddress reads, with the digest in nix32.
func (ca ContentAddress) String() string {
	if ca.IsZero() {
		return ""
	}
	return ca.Method.caPrefix() + ca.Hash.String()
}

// Append appends what String gives to dst.
func (ca ContentAddress) Append(dst []byte) []byte {
	if ca.IsZero() {
		return dst
	}
	return ca.Hash.Append(append(dst, ca.Method.caPrefix()...), nixhash.Nix32, true)
}

// References are what a content-addressed path refers to.
type References struct {
	// Others are the other paths, a sorted set without the path itself.
	Others []Path
	// Self is true when the path contains its own hash part.
	Self bool
}

// NotAllowedReferencesError says that a fixed output refers to store paths.
type NotAllowedReferencesError struct{ Name string }

func (e *NotAllowedReferencesError) Error() string {
	return fmt.Sprintf("fixed output derivation '%s' is not allowed to refer to other store paths.\n"+
		"You may need to use the 'unsafeDiscardReferences' derivation attribute, see the manual for more details.", e.Name)
}

// FromContentAddress computes the path of an object with that name, address
// and references (libstore/store-dir-config.cc, makeFixedOutputPathFromCA).
func (d Dir) FromContentAddress(name string, ca ContentAddress, refs References) (Path, error) {
	switch {
	case ca.Method == MethodText:
		return d.textPath(name, ca.Hash, refs)
	case ca.Method == MethodGit && ca.Hash.Algo() != nixhash.SHA1 && ca.Hash.Algo() != nixhash.SHA256:
		return Path{}, fmt.Errorf("Git file ingestion must use SHA-1 or SHA-256 hash, but instead using: %s", ca.Hash.Algo())
	case ca.Method == MethodNAR && ca.Hash.Algo() == nixhash.SHA256:
		return d.MakePath(d.typeWithReferences("source", refs), ca.Hash, name)
	case refs.Self || len(refs.Others) > 0:
		return Path{}, &NotAllowedReferencesError{name}
	}
	inner := "fixed:out:" + ca.Method.Prefix() + ca.Hash.Algo().String() + ":" + ca.Hash.Base16() + ":"
	return d.MakePath("output:out", nixhash.Of(nixhash.SHA256, inner), name)
}

func (d Dir) textPath(name string, h nixhash.Hash, refs References) (Path, error) {
	if h.Algo() != nixhash.SHA256 {
		return Path{}, fmt.Errorf("text-hashed store path '%s' must use sha256, not %s", name, h.Algo())
	}
	if refs.Self {
		return Path{}, fmt.Errorf("self-reference not allowed with text hashing")
	}
	return d.MakePath(d.typeWithReferences("text", refs), h, name)
}

// typeWithReferences appends the sorted references: they are part of the
// hashed fingerprint, so that the same bytes with other references are another
// object.
func (d Dir) typeWithReferences(kind string, refs References) string {
	var b strings.Builder
	b.WriteString(kind)
	for _, ref := range refs.Others {
		b.WriteByte(':')
		b.WriteString(d.Print(ref))
	}
	if refs.Self {
		b.WriteString(":self")
	}
	return b.String()
}

// MakePath computes "<dir>/<hash part>-<name>" from a fingerprint's type and
// inner hash (libstore/store-dir-config.cc, makeStorePath).
func (d Dir) MakePath(kind string, inner nixhash.Hash, name string) (Path, error) {
	return d.makePath(kind, inner.Format(nixhash.Base16, true), name)
}

func (d Dir) makePath(kind, inner, name string) (Path, error) {
	fingerprint := kind + ":" + inner + ":" + string(d) + ":" + name
	return New([20]byte(nixhash.Of(nixhash.SHA256, fingerprint).Compress(20)), name)
}

// MakeOutputPath computes the path of an input-addressed output from the
// derivation's hash modulo; drvName is the derivation's name without ".drv".
func (d Dir) MakeOutputPath(output string, modulo nixhash.Hash, drvName string) (Path, error) {
	return d.MakePath("output:"+output, modulo, OutputPathName(drvName, output))
}

// OutputPathName is the name of an output's path: the derivation's name, and
// "-<output>" unless that is "out".
func OutputPathName(drvName, output string) string {
	if output == "out" {
		return drvName
	}
	return drvName + "-" + output
}
