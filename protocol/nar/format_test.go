package nar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"nixdaemon/protocol/wire"
)

// tokens encodes strings as an archive does; the format's grammar is written with it below.
func tokens(list ...string) string { return encode(list...) }

// archive encodes the magic and tokens separated by spaces, where _ is the empty string.
func archive(text string) string {
	list := strings.Fields(text)
	for i, t := range list {
		if t == "_" {
			list[i] = ""
		}
	}
	return tokens(append([]string{Magic}, list...)...)
}

// listing is a Handler that writes down what it is given.
type listing struct {
	strings.Builder
	depth int
}

func (l *listing) line(format string, args ...any) {
	fmt.Fprintf(l, "%*s"+format+"\n", append([]any{2 * l.depth, ""}, args...)...)
}

func (l *listing) Directory(name string) error {
	l.line("%q/", name)
	l.depth++
	return nil
}

func (l *listing) EndDirectory() error {
	l.depth--
	return nil
}

func (l *listing) Regular(name string, executable bool, size uint64, contents io.Reader) error {
	data, err := io.ReadAll(contents)
	if err != nil {
		return err
	}
	if uint64(len(data)) != size {
		return fmt.Errorf("%d bytes of contents, want %d", len(data), size)
	}
	mark := ""
	if executable {
		mark = "*"
	}
	l.line("%q%s = %q", name, mark, data)
	return nil
}

func (l *listing) Symlink(name, target string) error {
	l.line("%q -> %q", name, target)
	return nil
}

// accepted is the documentation of the format.
var accepted = []struct{ name, archive, want string }{
	{"empty file", archive("( type regular contents _ )"), `"" = ""` + "\n"},
	{"file", archive("( type regular contents hello )"), `"" = "hello"` + "\n"},
	{"file of a multiple of 8", archive("( type regular contents 12345678 )"), `"" = "12345678"` + "\n"},
	{"executable", archive("( type regular executable _ contents hello )"), `""* = "hello"` + "\n"},
	{"link", archive("( type symlink target ../x )"), `"" -> "../x"` + "\n"},
	{"longest target", archive("( type symlink target " + strings.Repeat("t", MaxTarget) + " )"),
		`"" -> "` + strings.Repeat("t", MaxTarget) + "\"\n"},
	{"empty directory", archive("( type directory )"), `""/` + "\n"},
	{"directory", archive(`( type directory
		entry ( name .a node ( type regular contents x ) )
		entry ( name B node ( type directory
			entry ( name c node ( type symlink target d ) ) ) )
		entry ( name a node ( type directory ) )
		entry ( name a.b node ( type regular executable _ contents y ) ) )`),
		"\"\"/\n  \".a\" = \"x\"\n  \"B\"/\n    \"c\" -> \"d\"\n  \"a\"/\n  \"a.b\"* = \"y\"\n"},
	{"bytes above ASCII", archive("( type directory entry ( name z node ( type symlink target é ) ) entry ( name \xff node ( type symlink target \xfe ) ) )"),
		"\"\"/\n  \"z\" -> \"é\"\n  \"\\xff\" -> \"\\xfe\"\n"},
	{"longest name", archive("( type directory entry ( name " + strings.Repeat("n", MaxName) + " node ( type directory ) ) )"),
		"\"\"/\n  \"" + strings.Repeat("n", MaxName) + "\"/\n"},
	{"names that only look special", archive("( type directory entry ( name ... node ( type directory ) ) entry ( name ..a node ( type directory ) ) )"),
		"\"\"/\n  \"...\"/\n  \"..a\"/\n"},
}

// rejected are malformed archives with the texts that upstream 2.34.8 gives for them.
var rejected = []struct{ name, archive, want string }{
	{"other magic", tokens("nix-archive-2", "("), "bad archive: input doesn't look like a Nix archive"},
	{"short magic", tokens("nix-archive-", "("), "bad archive: input doesn't look like a Nix archive"},
	{"long magic", tokens("nix-archive-11", "("), "bad archive: input doesn't look like a Nix archive"},
	{"padded magic", strings.Replace(tokens(Magic, "("), "\x00\x00\x00\x01", "\x00\x00\x01\x01", 1), "bad archive: input doesn't look like a Nix archive"},
	{"a gzip file", "\x1f\x8b\x08\x00\x00\x00\x00\x00", "bad archive: input doesn't look like a Nix archive"},
	{"no parenthesis", archive("type regular"), "bad archive: expected tag '(', got 'type'"},
	{"no type", archive("( regular"), "bad archive: expected tag 'type', got 'regular'"},
	{"unknown type", archive("( type fifo )"), "bad archive: unknown file type 'fifo'"},
	{"long tag", archive("( type " + strings.Repeat("x", 33)), "string is too long"},
	{"longest tag", archive("( type " + strings.Repeat("x", 32)), "bad archive: unknown file type '" + strings.Repeat("x", 32) + "'"},
	{"other than contents", archive("( type regular AAAAAAAA )"), "bad archive: expected tag 'contents', got 'AAAAAAAA'"},
	{"no contents", archive("( type regular )"), "bad archive: expected tag 'contents', got ')'"},
	{"executable twice", archive("( type regular executable _ executable _ contents x )"), "bad archive: expected tag 'contents', got 'executable'"},
	{"executable with a value", archive("( type regular executable 1 contents x )"), "string is too long"},
	{"executable after contents", archive("( type regular contents x executable _ )"), "bad archive: expected tag ')', got 'executable'"},
	{"padding of contents", strings.Replace(archive("( type regular contents x )"), "x\x00", "x\x01", 1), "non-zero padding"},
	{"padding of a tag", strings.Replace(archive("( type regular contents x )"), "type\x00", "type\x01", 1), "non-zero padding"},
	{"other than target", archive("( type symlink contents x )"), "bad archive: expected tag 'target', got 'contents'"},
	{"empty target", archive("( type symlink target _ )"), "bad archive: NAR contains invalid symlink target"},
	{"target with NUL", archive("( type symlink target a\x00b )"), "bad archive: NAR contains invalid symlink target"},
	{"long target", archive("( type symlink target " + strings.Repeat("t", MaxTarget+1) + " )"), "string is too long"},
	{"end of a link", archive("( type symlink target x x )"), "bad archive: expected tag ')', got 'x'"},
	{"other than entry", archive("( type directory ( name"), "bad archive: expected tag 'entry' or ')', got '('"},
	{"entry without parenthesis", archive("( type directory entry name a"), "bad archive: expected tag '(', got 'name'"},
	{"node before name", archive("( type directory entry ( node ( type directory ) name a ) )"), "bad archive: expected tag 'name', got 'node'"},
	{"no node", archive("( type directory entry ( name a ) )"), "bad archive: expected tag 'node', got ')'"},
	{"end of an entry", archive("( type directory entry ( name a node ( type directory ) entry"), "bad archive: expected tag ')', got 'entry'"},
	{"empty name", archive("( type directory entry ( name _ node"), "bad archive: NAR contains invalid file name ''"},
	{"dot", archive("( type directory entry ( name . node"), "bad archive: NAR contains invalid file name '.'"},
	{"dots", archive("( type directory entry ( name .. node"), "bad archive: NAR contains invalid file name '..'"},
	{"slash", archive("( type directory entry ( name x/y node"), "bad archive: NAR contains invalid file name 'x/y'"},
	{"NUL", archive("( type directory entry ( name f\x00o node"), "bad archive: NAR contains invalid file name 'f\x00o'"},
	{"long name", archive("( type directory entry ( name " + strings.Repeat("n", MaxName+1) + " node"), "string is too long"},
	{"same name", archive("( type directory entry ( name a node ( type directory ) ) entry ( name a node"), "bad archive: NAR directory is not sorted"},
	{"unsorted", archive("( type directory entry ( name b node ( type directory ) ) entry ( name a node"), "bad archive: NAR directory is not sorted"},
	{"sorted as signed bytes", archive("( type directory entry ( name \xff node ( type directory ) ) entry ( name a node"), "bad archive: NAR directory is not sorted"},
	{"invalid before unsorted", archive("( type directory entry ( name b node ( type directory ) ) entry ( name . node"), "bad archive: NAR contains invalid file name '.'"},
	{"too deep", deep(MaxDepth + 1), "bad archive: NAR directory nesting exceeds maximum depth of 64"},
}

// deep is a tree of so many levels.
func deep(levels int) string {
	return archive(strings.Repeat("( type directory entry ( name a node ", levels-1) +
		"( type directory )" + strings.Repeat(" ) )", levels-1))
}

// readers are the ways in which an archive can arrive.
var readers = map[string]func(io.Reader) io.Reader{
	"unbuffered":   func(r io.Reader) io.Reader { return struct{ io.Reader }{r} },
	"wire":         func(r io.Reader) io.Reader { return wire.NewReader(r) },
	"small buffer": func(r io.Reader) io.Reader { return wire.NewReaderSize(r, 0) },
	"framed":       framed,
}

// framed sends what r has in frames of odd sizes.
func framed(r io.Reader) io.Reader {
	var out bytes.Buffer
	w := wire.NewWriter(&out)
	f := w.Framed()
	for n := int64(1); ; n = n%57 + 7 {
		got, err := io.CopyN(f, r, n)
		if err := errors.Join(f.Send()); err != nil {
			panic(err)
		}
		if got < n || err != nil {
			break
		}
	}
	if err := errors.Join(f.Close(), w.Flush()); err != nil {
		panic(err)
	}
	return wire.NewReader(&out).Framed()
}

func TestAccepted(t *testing.T) {
	all := append(slices.Clip(accepted), struct{ name, archive, want string }{"deepest", deep(MaxDepth), ""})
	for _, tt := range all {
		for how, reader := range readers {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				r := reader(strings.NewReader(tt.archive + "next"))
				var got listing
				if err := Parse(r, &got); err != nil {
					t.Fatal(err)
				}
				if tt.want != "" && got.String() != tt.want {
					t.Errorf("got\n%swant\n%s", &got, tt.want)
				}
				if rest, err := io.ReadAll(r); string(rest) != "next" || err != nil {
					t.Errorf("behind the archive got %q, %v", rest, err)
				}
			})
		}
	}
}

func TestRejected(t *testing.T) {
	for _, tt := range rejected {
		for how, reader := range readers {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				err := Skip(reader(strings.NewReader(tt.archive + strings.Repeat(")", 1<<10))))
				var malformed *wire.Error
				if !errors.As(err, &malformed) || err.Error() != tt.want {
					t.Errorf("got %#v, want %q", err, tt.want)
				}
			})
		}
	}
}

// An archive cut short anywhere is no archive, and never looks like a clean end of the stream.
func TestTruncated(t *testing.T) {
	for _, tt := range accepted {
		for n := range min(len(tt.archive), 600) {
			for how, reader := range readers {
				if err := Parse(reader(strings.NewReader(tt.archive[:n])), &listing{}); err != io.ErrUnexpectedEOF {
					t.Errorf("%s, %s, first %d of %d bytes: got %v", tt.name, how, n, len(tt.archive), err)
				}
			}
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{"": false, ".": false, "..": false, "a/b": false, "/": false, "a\x00": false,
		"a": true, "...": true, ".a": true, "\n": true, strings.Repeat("x", 255): true, strings.Repeat("x", 256): false} {
		if got := ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %v", name, got)
		}
	}
	for target, want := range map[string]bool{"": false, "a\x00": false, "/": true, "..": true,
		strings.Repeat("x", 4095): true, strings.Repeat("x", 4096): false} {
		if got := ValidTarget(target); got != want {
			t.Errorf("ValidTarget(%q) = %v", target, got)
		}
	}
}
