package narinfo

import (
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"nixdaemon/protocol/internal/njson"
	"nixdaemon/protocol/nar"
)

// Listing writes the ".ls" file of a path as a [nar.Handler] that goes through its archive: what is in it, and where in
// the archive the contents of its files begin, as JSON of version 1 (libutil/nar-listing.cc). It holds nothing but what
// is not yet written. The text is whole once [Listing.Finish] has returned nil.
type Listing struct {
	w     io.Writer
	text  []byte
	pos   uint64 // in the archive, behind what has been listed
	first []bool // for each open directory, whether nothing is listed in it yet
}

var _ nar.Handler = (*Listing)(nil)

// listingStep is how much text is gathered before it is written.
const listingStep = 32 << 10

// NewListing begins a listing.
func NewListing(w io.Writer) *Listing {
	return &Listing{w: w, text: []byte(`{"root":`), pos: tokens("nix-archive-1")}
}

// tokens is how many bytes of an archive strings take.
func tokens(texts ...string) uint64 {
	var n uint64
	for _, t := range texts {
		n += encoded(uint64(len(t)))
	}
	return n
}

// encoded is how many bytes of an archive a string of size bytes takes: its length, and padding to eight.
func encoded(size uint64) uint64 { return 8 + (size+7)/8*8 }

// begin writes the key of an entry; the root has none.
func (l *Listing) begin(name string) error {
	if len(l.first) == 0 {
		return nil
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("list archive: name '%s' is not UTF-8", strconv.QuoteToASCII(name))
	}
	if last := len(l.first) - 1; l.first[last] {
		l.first[last] = false
	} else {
		l.text = append(l.text, ',')
	}
	l.text = append(njson.AppendString(l.text, name), ':')
	l.pos += tokens("entry", "(", "name", name, "node")
	return nil
}

// end is called behind a node.
func (l *Listing) end() error {
	l.pos += tokens(")")
	if len(l.first) > 0 {
		l.pos += tokens(")") // that of the entry
	}
	if len(l.text) < listingStep {
		return nil
	}
	return l.flush()
}

func (l *Listing) flush() error {
	_, err := l.w.Write(l.text)
	l.text = l.text[:0]
	return err
}

// Directory lists a directory.
func (l *Listing) Directory(name string) error {
	if err := l.begin(name); err != nil {
		return err
	}
	l.pos += tokens("(", "type", "directory")
	l.text = append(l.text, `{"entries":{`...)
	l.first = append(l.first, true)
	return nil
}

// EndDirectory ends it.
func (l *Listing) EndDirectory() error {
	l.first = l.first[:len(l.first)-1]
	l.text = append(l.text, `},"type":"directory"}`...)
	return l.end()
}

// Regular lists a file. Its contents are not read.
func (l *Listing) Regular(name string, executable bool, size uint64, _ io.Reader) error {
	if err := l.begin(name); err != nil {
		return err
	}
	l.pos += tokens("(", "type", "regular", "contents") + 8
	l.text = append(l.text, '{')
	if executable {
		l.pos += tokens("executable", "")
		l.text = append(l.text, `"executable":true,`...)
	}
	l.text = strconv.AppendUint(append(l.text, `"narOffset":`...), l.pos, 10)
	l.text = strconv.AppendUint(append(l.text, `,"size":`...), size, 10)
	l.text = append(l.text, `,"type":"regular"}`...)
	l.pos += encoded(size) - 8
	return l.end()
}

// Symlink lists a symbolic link.
func (l *Listing) Symlink(name, target string) error {
	if err := l.begin(name); err != nil {
		return err
	}
	if !utf8.ValidString(target) {
		return fmt.Errorf("list archive: target %s is not UTF-8", strconv.QuoteToASCII(target))
	}
	l.pos += tokens("(", "type", "symlink", "target", target)
	l.text = append(njson.AppendString(append(l.text, `{"target":`...), target), `,"type":"symlink"}`...)
	return l.end()
}

// Finish writes what is left. The archive has been gone through.
func (l *Listing) Finish() error {
	l.text = append(l.text, `,"version":1}`...)
	return l.flush()
}
