package nar

import (
	"encoding/binary"
	"errors"
	"io"

	"nixdaemon/protocol/wire"
)

// A Parser reads archives, one after the other, and keeps the memory through which contents move: at most 160 KiB once
// it has met a large file. The zero value is ready. It is for one goroutine.
type Parser struct {
	src  source
	file contents
	h    Handler
}

// Parse is [Parse] with the Parser's memory.
func (p *Parser) Parse(r io.Reader, h Handler) error {
	_, err := p.parse(r, nil, h)
	return err
}

// ParseTee is [ParseTee] with the Parser's memory.
func (p *Parser) ParseTee(r io.Reader, w io.Writer, h Handler) (int64, error) {
	return p.parse(r, w, h)
}

func (p *Parser) parse(r io.Reader, w io.Writer, h Handler) (int64, error) {
	p.src.begin(r, w)
	// What lives on must not keep what was read from and written to.
	defer p.forget()
	if err := p.archive(h); err != nil {
		return p.src.teeSize, err
	}
	err := p.src.flushTee()
	return p.src.teeSize, err
}

func (p *Parser) forget() {
	p.src.in, p.src.tee, p.h = nil, nil, nil
}

// Parse reads one archive from r and drives h with its nodes. It consumes exactly the archive's bytes.
//
// If r has a buffer to look into (see [Buffered]), small entries cost no more than copying their names;
// from other readers every string is read by itself, so buffer them unless they are memory.
//
// Malformed input is a [wire.Error]; a stream that ends too early is [io.ErrUnexpectedEOF];
// errors of r and h come through unchanged. After an error the position in r is undefined.
func Parse(r io.Reader, h Handler) error { return new(Parser).Parse(r, h) }

// ParseTee is [Parse] that also writes the archive's bytes to w as they are consumed, whether h reads them or not,
// and returns how many. Small ones are gathered into larger writes; all were written when it returns nil.
func ParseTee(r io.Reader, w io.Writer, h Handler) (int64, error) {
	return new(Parser).ParseTee(r, w, h)
}

// Copy validates one archive and writes it to w unchanged, and returns its size.
// What was written when it fails is the beginning of no archive.
func Copy(w io.Writer, r io.Reader) (int64, error) { return ParseTee(r, w, ignore{}) }

// Skip validates and consumes one archive.
func Skip(r io.Reader) error { return Parse(r, ignore{}) }

// Encoded sequences of strings that the parser looks for at once, when they are buffered.
var (
	openType  = encode("(", "type")
	contentsT = encode("contents")
	closeT    = encode(")")
	entryName = encode("entry", "(", "name")
	nodeT     = encode("node")
	targetT   = encode("target")
)

func encode(tokens ...string) string {
	var b []byte
	for _, t := range tokens {
		b = appendString(b, t)
	}
	return string(b)
}

func (p *Parser) archive(h Handler) error {
	p.h, p.file = h, contents{src: &p.src}
	magic, err := p.string(len(Magic))
	if malformed := (*wire.Error)(nil); errors.As(err, &malformed) || err == nil && string(magic) != Magic {
		return badArchive("input doesn't look like a Nix archive")
	}
	if err != nil {
		return err
	}
	return p.node("", 0)
}

// string reads a string of at most limit bytes, which is at most MaxTarget. It stays valid until the next read.
func (p *Parser) string(limit int) ([]byte, error) {
	b, err := p.src.next(8)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(b)
	if n > uint64(limit) {
		return nil, wire.ErrStringTooLong
	}
	b, err = p.src.next(int(n+7) &^ 7)
	if err != nil {
		return nil, err
	}
	return b[:n], checkPadding(b[n:])
}

func checkPadding(b []byte) error {
	for _, c := range b {
		if c != 0 {
			return wire.ErrPadding
		}
	}
	return nil
}

// expect reads the tags that encoded stands for, at once if possible and one by one to tell what is wrong.
func (p *Parser) expect(encoded string, tags ...string) error {
	if p.src.accept(encoded) {
		return nil
	}
	for _, want := range tags {
		got, err := p.string(maxTag)
		if err != nil {
			return err
		}
		if string(got) != want {
			return badArchive("expected tag '%s', got '%s'", want, got)
		}
	}
	return nil
}

func (p *Parser) node(name string, depth int) error {
	if depth >= MaxDepth {
		return errTooDeep()
	}
	if err := p.expect(openType, "(", "type"); err != nil {
		return err
	}
	kind, err := p.string(maxTag)
	if err != nil {
		return err
	}
	switch string(kind) {
	case "regular":
		return p.regular(name)
	case "directory":
		return p.directory(name, depth)
	case "symlink":
		return p.symlink(name)
	}
	return badArchive("unknown file type '%s'", kind)
}

func (p *Parser) regular(name string) error {
	executable, err := p.contentsTag()
	if err != nil {
		return err
	}
	b, err := p.src.next(8)
	if err != nil {
		return err
	}
	size := binary.LittleEndian.Uint64(b)
	p.file.left = size
	if err := p.h.Regular(name, executable, size, &p.file); err != nil {
		return err
	}
	if err := p.file.skip(); err != nil {
		return err
	}
	pad, err := p.src.next(int(-size & 7))
	if err != nil {
		return err
	}
	if err := checkPadding(pad); err != nil {
		return err
	}
	return p.expect(closeT, ")")
}

// contentsTag reads up to the size of a file's contents, and whether the file is executable.
func (p *Parser) contentsTag() (executable bool, err error) {
	if p.src.accept(contentsT) {
		return false, nil
	}
	tag, err := p.string(maxTag)
	if err == nil && string(tag) == "executable" {
		executable = true
		// A marker with a value is "string is too long", as upstream: the limit is checked first.
		if _, err = p.string(0); err != nil {
			return false, err
		}
		tag, err = p.string(maxTag)
	}
	if err != nil {
		return false, err
	}
	if string(tag) != "contents" {
		return false, badArchive("expected tag 'contents', got '%s'", tag)
	}
	return executable, nil
}

func (p *Parser) symlink(name string) error {
	if err := p.expect(targetT, "target"); err != nil {
		return err
	}
	b, err := p.string(MaxTarget)
	if err != nil {
		return err
	}
	target := string(b)
	if !ValidTarget(target) {
		return errTarget()
	}
	if err := p.h.Symlink(name, target); err != nil {
		return err
	}
	return p.expect(closeT, ")")
}

func (p *Parser) directory(name string, depth int) error {
	if err := p.h.Directory(name); err != nil {
		return err
	}
	last := ""
	for {
		more, err := p.entry()
		if err != nil {
			return err
		}
		if !more {
			return p.h.EndDirectory()
		}
		if last, err = p.name(last); err != nil {
			return err
		}
		if err := p.expect(nodeT, "node"); err != nil {
			return err
		}
		if err := p.node(last, depth+1); err != nil {
			return err
		}
		if err := p.expect(closeT, ")"); err != nil {
			return err
		}
	}
}

// entry reads up to the name of a directory's next entry, or to the directory's end.
func (p *Parser) entry() (more bool, err error) {
	if p.src.accept(entryName) {
		return true, nil
	}
	tag, err := p.string(maxTag)
	if err != nil {
		return false, err
	}
	switch string(tag) {
	case ")":
		return false, nil
	case "entry":
		return true, p.expect(entryName[len(encode("entry")):], "(", "name")
	}
	return false, badArchive("expected tag 'entry' or ')', got '%s'", tag)
}

// name reads the name of an entry, which must come after last.
func (p *Parser) name(last string) (string, error) {
	b, err := p.string(MaxName)
	if err != nil {
		return "", err
	}
	name := string(b)
	if !ValidName(name) {
		return "", errName(name)
	}
	if name <= last {
		return "", errUnsorted()
	}
	return name, nil
}
