package build

import (
	"strconv"
	"strings"
)

// Escape sequences as in upstream's ansicolor.hh.
const (
	ansiNormal  = "\x1b[0m"
	ansiBold    = "\x1b[1m"
	ansiRed     = "\x1b[31;1m"
	ansiMagenta = "\x1b[35;1m"
)

// Text is a message whose highlighted parts are known, so that it can be printed with and without upstream's colours.
// The zero Text is empty.
type Text struct{ parts []part }

type part struct {
	escape, text string
}

// plain, red and bold are arguments of textf that are not to be magenta.
type (
	plain string
	red   string
	bold  string
)

// textf puts the arguments in the place of each %s of the format. As in upstream's HintFmt arguments are magenta,
// numbers too, unless they are plain, red, bold or themselves a Text.
func textf(format string, args ...any) Text {
	var t Text
	for _, arg := range args {
		before, after, _ := strings.Cut(format, "%s")
		t.add("", before)
		t.addArg(arg)
		format = after
	}
	t.add("", format)
	return t
}

func (t *Text) addArg(arg any) {
	switch arg := arg.(type) {
	case plain:
		t.add("", string(arg))
	case red:
		t.add(ansiRed, string(arg))
	case bold:
		t.add(ansiBold, string(arg))
	case Text:
		t.parts = append(t.parts, arg.parts...)
	case string:
		t.add(ansiMagenta, arg)
	case int:
		t.add(ansiMagenta, strconv.Itoa(arg))
	case int64:
		t.add(ansiMagenta, strconv.FormatInt(arg, 10))
	case uint64:
		t.add(ansiMagenta, strconv.FormatUint(arg, 10))
	default:
		panic("build: textf of an unknown type")
	}
}

func (t *Text) add(escape, text string) {
	if text != "" || escape != "" {
		t.parts = append(t.parts, part{escape, text})
	}
}

// and appends other texts.
func (t Text) and(more ...Text) Text {
	all := Text{parts: t.parts[:len(t.parts):len(t.parts)]}
	for _, m := range more {
		all.parts = append(all.parts, m.parts...)
	}
	return all
}

// String is the text without escape sequences of ours.
func (t Text) String() string {
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.text)
	}
	return b.String()
}

// Coloured is the text as upstream sends it to clients, with escape sequences.
func (t Text) Coloured() string {
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.escape)
		b.WriteString(p.text)
		if p.escape != "" {
			b.WriteString(ansiNormal)
		}
	}
	return b.String()
}

// quotedPath is a file name as upstream's PathFmt prints it.
func quotedPath(p string) string { return `"` + p + `"` }

// errorLog is how an error appears in a client's log: "error: " and the text, further lines indented to match
// (libutil/error.cc, showErrorInfo).
func errorLog(coloured string) string {
	var b strings.Builder
	b.WriteString(ansiRed + "error:" + ansiNormal + " ")
	for i, line := range strings.Split(strings.TrimRight(coloured, "\n"), "\n") {
		if i > 0 {
			line = "\n" + strings.TrimRight("       "+line, " \t\r\n")
		}
		b.WriteString(line)
	}
	return b.String()
}

// warning is how a warning appears in a client's log.
func warning(t Text) string { return warningPrefix + t.Coloured() }

const warningPrefix = ansiMagenta + "warning:" + ansiNormal + " "
