// Package storepath names what lies in a Nix store. A [Path] is the base name
// of a store object, its hash part and its name; a [Dir] is the directory in
// which such names are printed and parsed; a [ContentAddress] says how a path
// follows from what it contains.
//
// Nothing here touches a disk.
package storepath

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"nixdaemon/protocol/nixhash"
)

// HashLen is the number of nix32 digits of a path's hash part.
const HashLen = 32

// MaxNameLen is the longest name of a store path, in bytes: a file name's 255
// less the hash part, its dash, and room for suffixes such as ".lock".
const MaxNameLen = 211

// DrvExtension ends the name of a store derivation.
const DrvExtension = ".drv"

// Path is a store path without its directory: "<hash part>-<name>". Paths
// compare with == and by [Compare]; the zero Path is no path.
type Path struct{ base string }

// BadPathError tells why a text is no store path.
type BadPathError struct{ text string }

func (e *BadPathError) Error() string { return e.text }

func badPath(format string, args ...any) error {
	return &BadPathError{fmt.Sprintf(format, args...)}
}

// ParseBase reads a base name such as "<hash part>-hello-1.0". The texts of
// its errors are upstream's (libstore/path.cc).
func ParseBase(base string) (Path, error) {
	if len(base) < HashLen+1 {
		return Path{}, badPath("'%s' is too short to be a valid store path", base)
	}
	if i := nixhash.IndexNotNix32(base[:HashLen]); i >= 0 {
		return Path{}, badPath("store path '%s' contains illegal base-32 character '%s'", base, base[i:i+1])
	}
	if base[HashLen] != '-' {
		return Path{}, badPath("'%s' can't name a store path because the hash part is not followed by a '-'", base)
	}
	if err := CheckName(base[HashLen+1:]); err != nil {
		return Path{}, badPath("path '%s' is not a valid store path: %v", base, err)
	}
	return Path{base}, nil
}

// New joins a hash part and a name.
func New(hashPart [20]byte, name string) (Path, error) {
	base := make([]byte, 0, HashLen+1+len(name))
	base = nixhash.AppendNix32(base, hashPart[:])
	base = append(base, '-')
	base = append(base, name...)
	if err := CheckName(name); err != nil {
		return Path{}, badPath("path '%s' is not a valid store path: %v", base, err)
	}
	return Path{string(base)}, nil
}

// CheckName tells whether a name may stand in a store path (libstore/path.cc,
// checkName). It is also upstream's rule for the names of outputs.
func CheckName(name string) error {
	if name == "" {
		return badPath("name must not be empty")
	}
	if len(name) > MaxNameLen {
		return badPath("name '%s' must be no longer than %d characters", name, MaxNameLen)
	}
	if name[0] == '.' {
		if err := checkDots(name); err != nil {
			return err
		}
	}
	for i := range len(name) {
		if !isNameByte[name[i]] {
			return badPath("name '%s' contains illegal character '%s'", name, name[i:i+1])
		}
	}
	return nil
}

// checkDots refuses "." and "..", alone or before the first dash, which
// programs could take for directories.
func checkDots(name string) error {
	if name == "." || name == ".." {
		return badPath("name '%s' is not valid", name)
	}
	first, _, found := strings.Cut(name, "-")
	if found && (first == "." || first == "..") {
		return badPath("name '%s' is not valid: first dash-separated component must not be '%s'", name, first)
	}
	return nil
}

// isNameByte is true for the bytes that names may have.
var isNameByte = func() (table [256]bool) {
	for _, c := range []byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?=") {
		table[c] = true
	}
	return table
}()

// Base is the whole base name.
func (p Path) Base() string { return p.base }

// String is the base name, so that messages can print a Path; clients are
// shown [Dir.Print].
func (p Path) String() string { return p.base }

// HashPart is the 32 digits before the name, "" for the zero Path.
func (p Path) HashPart() string {
	if p.base == "" {
		return ""
	}
	return p.base[:HashLen]
}

// Name is what follows the hash part and its dash.
func (p Path) Name() string {
	if p.base == "" {
		return ""
	}
	return p.base[HashLen+1:]
}

// IsZero tells whether this is no path.
func (p Path) IsZero() bool { return p.base == "" }

// IsDerivation tells whether the name ends in ".drv".
func (p Path) IsDerivation() bool { return strings.HasSuffix(p.base, DrvExtension) }

// RequireDerivation returns upstream's error for a path that should have named
// a derivation.
func (p Path) RequireDerivation() error {
	if !p.IsDerivation() {
		return badPath("store path '%s' is not a valid derivation path", p.base)
	}
	return nil
}

// Compare orders paths by their bytes.
func Compare(a, b Path) int { return strings.Compare(a.base, b.base) }

// SortUnique sorts paths in place and drops duplicates: the form of a set.
func SortUnique(paths []Path) []Path {
	slices.SortFunc(paths, Compare)
	return slices.Compact(paths)
}

// Contains looks a path up in a sorted set.
func Contains(sorted []Path, p Path) bool {
	_, found := slices.BinarySearchFunc(sorted, p, Compare)
	return found
}

// Dir is a store directory, absolute and clean, such as "/nix/store".
type Dir string

// DefaultDir is where stores are unless configured otherwise.
const DefaultDir Dir = "/nix/store"

// Print gives the full path, or "" for the zero Path (the wire's "none").
func (d Dir) Print(p Path) string {
	if p.base == "" {
		return ""
	}
	return string(d) + "/" + p.base
}

// PrintAll gives the full paths in order.
func (d Dir) PrintAll(paths []Path) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = d.Print(p)
	}
	return out
}

// Parse reads a full path of a store object. Doubled slashes, "." and ".." are
// tolerated as upstream does (libstore/store-dir-config.cc, parseStorePath).
func (d Dir) Parse(s string) (Path, error) {
	if rest, ok := d.cutPrefix(s); ok && isPlainBase(rest) {
		return ParseBase(rest)
	}
	if s == "" {
		return Path{}, badPath("empty path is not a valid store path")
	}
	if !path.IsAbs(s) {
		return Path{}, fmt.Errorf("not an absolute path: \"%s\"", s)
	}
	clean := path.Clean(s)
	rest, ok := d.cutPrefix(clean)
	if !ok || strings.Contains(rest, "/") {
		return Path{}, badPath("path \"%s\" is not in the Nix store", clean)
	}
	return ParseBase(rest)
}

// ParseOptional reads a full path where the empty text means none.
func (d Dir) ParseOptional(s string) (Path, error) {
	if s == "" {
		return Path{}, nil
	}
	return d.Parse(s)
}

// ParseInside reads a path of a store object or of something beneath it and
// gives the object and the rest, which is "" or begins with a slash. The rest
// is not made canonical (libstore/store-api.cc, toStorePath).
func (d Dir) ParseInside(s string) (Path, string, error) {
	rest, ok := d.cutPrefix(s)
	if !ok {
		return Path{}, "", badPath("path '%s' is not in the Nix store", s)
	}
	base, sub, found := strings.Cut(rest, "/")
	p, err := d.Parse(string(d) + "/" + base)
	if found {
		sub = "/" + sub
	}
	return p, sub, err
}

func (d Dir) cutPrefix(s string) (string, bool) {
	if len(s) > len(d)+1 && s[:len(d)] == string(d) && s[len(d)] == '/' {
		return s[len(d)+1:], true
	}
	return "", false
}

func isPlainBase(s string) bool { return s != "." && s != ".." && !strings.Contains(s, "/") }
