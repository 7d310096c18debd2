package pathinfo

import (
	"fmt"
	"math"
	"strconv"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// MaxSigs is how many signatures a content-addressed path counts for: its
// content vouches for it (libstore/path-info.hh, maxSigs).
const MaxSigs = math.MaxInt

// Fingerprint is what a signature of a path signs:
// "1;<path>;<NAR hash>;<NAR size>;<references, comma separated>". It is an
// error if the size is not known.
func Fingerprint(dir storepath.Dir, info *Info) (string, error) {
	if info.NarSize == 0 {
		return "", fmt.Errorf("cannot calculate fingerprint of path '%s' because its size is not known", dir.Print(info.Path))
	}
	out := make([]byte, 0, 128+len(info.References)*(len(dir)+64))
	out = append(out, "1;"...)
	out = appendPath(out, dir, info.Path)
	out = append(out, ';')
	out = info.NarHash.Append(out, nixhash.Nix32, true)
	out = append(out, ';')
	out = strconv.AppendUint(out, info.NarSize, 10)
	out = append(out, ';')
	for i, ref := range info.References {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendPath(out, dir, ref)
	}
	return string(out), nil
}

func appendPath(dst []byte, dir storepath.Dir, p storepath.Path) []byte {
	dst = append(dst, dir...)
	dst = append(dst, '/')
	return append(dst, p.Base()...)
}

// Sign adds a signature of the path's fingerprint. info.Sigs is replaced, not
// changed.
func (info *Info) Sign(dir storepath.Dir, key SecretKey) error {
	fingerprint, err := Fingerprint(dir, info)
	if err != nil {
		return err
	}
	info.Sigs = MergeSignatures(info.Sigs, []Signature{key.Sign(fingerprint)})
	return nil
}

// CountValid is the number of signatures by trusted keys, or [MaxSigs] for a
// path that is content-addressed (libstore/path-info.cc, checkSignatures).
// Without a NAR size no signature is valid.
func (ks Keys) CountValid(dir storepath.Dir, info *Info) int {
	if info.IsContentAddressed(dir) {
		return MaxSigs
	}
	if len(info.Sigs) == 0 || len(ks) == 0 {
		return 0
	}
	fingerprint, err := Fingerprint(dir, info)
	if err != nil {
		return 0
	}
	return ks.Count(fingerprint, info.Sigs)
}

// IsContentAddressed tells whether the path follows from the content address
// and the references. False for a path with a CA that is not its own, which
// upstream warns of as "path '%s' claims to be content-addressed but isn't".
func (info *Info) IsContentAddressed(dir storepath.Dir) bool {
	if info.CA.IsZero() {
		return false
	}
	p, err := dir.FromContentAddress(info.Path.Name(), info.CA, info.SplitReferences())
	return err == nil && p == info.Path
}

// SplitReferences tells the path's reference to itself from the others.
func (info *Info) SplitReferences() storepath.References {
	for i, ref := range info.References {
		if ref != info.Path {
			continue
		}
		others := make([]storepath.Path, 0, len(info.References)-1)
		others = append(others, info.References[:i]...)
		return storepath.References{Others: append(others, info.References[i+1:]...), Self: true}
	}
	return storepath.References{Others: info.References}
}

// FromCA makes the metadata of a content-addressed path: its path, content
// address and references are set (libstore/path-info.cc, makeFromCA).
func FromCA(dir storepath.Dir, name string, ca storepath.ContentAddress, refs storepath.References) (*Info, error) {
	p, err := dir.FromContentAddress(name, ca, refs)
	if err != nil {
		return nil, err
	}
	info := &Info{Path: p, CA: ca, References: refs.Others}
	if refs.Self {
		all := append(make([]storepath.Path, 0, len(refs.Others)+1), refs.Others...)
		info.References = storepath.SortUnique(append(all, p))
	}
	return info, nil
}
