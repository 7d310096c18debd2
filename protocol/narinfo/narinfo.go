// Package narinfo reads and writes the texts of a binary cache: a [NarInfo]
// tells of a path and where its compressed NAR lies, a [Listing] what is in that,
// a [CacheInfo] tells of the cache.
package narinfo

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// NarInfo is the content of a .narinfo file. Nothing in it but path, NAR hash,
// NAR size and references is covered by signatures.
type NarInfo struct {
	pathinfo.Info
	// URL is relative to the cache, or absolute.
	URL string
	// Compression is "none", "xz" and so on.
	Compression string
	// FileHash and FileSize are of the compressed NAR; zero when unknown.
	FileHash nixhash.Hash
	FileSize uint64
}

// noDeriver stands for an unknown deriver.
const noDeriver = "unknown-deriver"

// Parse reads a .narinfo; whence says in errors where it comes from. Fields
// that are not known are ignored (libstore/nar-info.cc).
func Parse(dir storepath.Dir, text, whence string) (*NarInfo, error) {
	p := &parser{dir: dir, whence: whence, n: &NarInfo{}}
	for rest := text; rest != ""; {
		p.line++
		name, value, after, err := p.field(rest)
		if err != nil {
			return nil, err
		}
		if err := p.set(name, value); err != nil {
			return nil, err
		}
		rest = after
	}
	return p.finish()
}

type parser struct {
	dir    storepath.Dir
	whence string
	line   int
	n      *NarInfo
}

func (p *parser) corrupt(reason string) error {
	if p.line > 0 {
		reason += " at line " + strconv.Itoa(p.line)
	}
	return fmt.Errorf("NAR info file '%s' is corrupt: %s", p.whence, reason)
}

// field reads one line. The byte after the colon is taken for a space whatever
// it is, even a newline.
func (p *parser) field(text string) (name, value, rest string, err error) {
	colon := strings.IndexByte(text, ':')
	if colon < 0 {
		return "", "", "", p.corrupt("expecting ':'")
	}
	value = text[min(colon+2, len(text)):]
	eol := strings.IndexByte(value, '\n')
	if eol < 0 {
		return "", "", "", p.corrupt(`expecting '\n'`)
	}
	return text[:colon], value[:eol], value[eol+1:], nil
}

func (p *parser) set(name, value string) (err error) {
	n := p.n
	switch name {
	case "StorePath":
		n.Path, err = p.dir.Parse(value)
	case "URL":
		n.URL = value
	case "Compression":
		n.Compression = value
	case "FileHash":
		n.FileHash, err = p.hash(value)
	case "FileSize":
		n.FileSize, err = p.size(name, value)
	case "NarHash":
		n.NarHash, err = p.hash(value)
	case "NarSize":
		n.NarSize, err = p.size(name, value)
	case "References":
		err = p.references(value)
	case "Deriver":
		if value != noDeriver {
			n.Deriver, err = storepath.ParseBase(value)
		}
	case "Sig":
		var sig pathinfo.Signature
		sig, err = pathinfo.ParseSignature(value)
		n.Sigs = append(n.Sigs, sig)
	case "CA":
		if !n.CA.IsZero() {
			return p.corrupt("extra CA")
		}
		n.CA, err = storepath.ParseContentAddress(value)
	}
	return err
}

func (p *parser) hash(value string) (nixhash.Hash, error) {
	h, err := nixhash.Parse(value)
	if bad := (*nixhash.BadHashError)(nil); errors.As(err, &bad) {
		return h, p.corrupt("bad hash")
	}
	return h, err
}

func (p *parser) size(name, value string) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(value, "+"), 10, 64)
	if err != nil {
		return 0, p.corrupt("invalid " + name)
	}
	return n, nil
}

func (p *parser) references(value string) error {
	if len(p.n.References) > 0 {
		return p.corrupt("extra References")
	}
	for word := range strings.SplitSeq(value, " ") {
		if word == "" {
			continue
		}
		ref, err := storepath.ParseBase(word)
		if err != nil {
			return err
		}
		p.n.References = append(p.n.References, ref)
	}
	p.n.References = storepath.SortUnique(p.n.References)
	return nil
}

func (p *parser) finish() (*NarInfo, error) {
	p.line = 0
	n := p.n
	switch {
	case n.Path.IsZero():
		return nil, p.corrupt("StorePath missing")
	case n.NarHash.IsZero():
		return nil, p.corrupt("NarHash missing")
	case n.URL == "":
		return nil, p.corrupt("URL missing")
	case n.NarSize == 0:
		return nil, p.corrupt("NarSize missing or zero")
	}
	if n.Compression == "" {
		n.Compression = "bzip2"
	}
	n.Sigs = pathinfo.SortSignatures(n.Sigs)
	return n, nil
}

// Format writes what Parse reads, fields in upstream's order. FileHash is left
// out when it is not known.
func (n *NarInfo) Format(dir storepath.Dir) string {
	var b strings.Builder
	line := func(name, value string) { b.WriteString(name + ": " + value + "\n") }
	line("StorePath", dir.Print(n.Path))
	line("URL", n.URL)
	line("Compression", n.Compression)
	if !n.FileHash.IsZero() {
		line("FileHash", n.FileHash.String())
	}
	line("FileSize", strconv.FormatUint(n.FileSize, 10))
	line("NarHash", n.NarHash.String())
	line("NarSize", strconv.FormatUint(n.NarSize, 10))
	refs := make([]string, len(n.References))
	for i, ref := range n.References {
		refs[i] = ref.Base()
	}
	line("References", strings.Join(refs, " "))
	if !n.Deriver.IsZero() {
		line("Deriver", n.Deriver.Base())
	}
	for _, sig := range n.Sigs {
		line("Sig", string(sig))
	}
	if !n.CA.IsZero() {
		line("CA", n.CA.String())
	}
	return b.String()
}
