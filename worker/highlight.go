package worker

import (
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Escape sequences of upstream's messages (libutil/ansicolor.hh).
const (
	magenta = "\x1b[35;1m"
	red     = "\x1b[31;1m"
	normal  = "\x1b[0m"
)

// quoted finds the arguments of most messages: what stands in single quotes,
// and file names in double quotes with these. It is compiled when it
// is first needed: with all expressions that was 7 % of a start's time.
var quoted = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\B'([^'\n]+)'\B|"/[^"\n]*"`) })

// forms are the messages whose arguments are not just what is quoted: some are
// bare, some quotes hold no argument. In each, %s is an argument and %p one
// that upstream does not mark (libutil/fmt.hh, Uncolored). The text before and
// after a form is looked at for itself.
var forms = sync.OnceValue(func() []*regexp.Regexp { return compileForms(formTexts...) })

var formTexts = []string{
	"serialised integer %s is too large for type '%s'",
	"not an absolute path: %s",
	"name '%s' must be no longer than %s characters",
	"Invalid derivation output id '%s': missing '^'",
	"Invalid derivation output id %s",
	"unknown hash algorithm '%s', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'",
	"experimental Nix feature '%s' is disabled%p; add '--extra-experimental-features %s' to enable it",
	"content address prefix '%s' is unrecognized. Recogonized prefixes are 'text' or 'fixed'",
	"not a content address because it is not in the form '<prefix>:<rest>': %s",
	"content address hash must be in form '<algo>:<hash>', but found: %s",
	"must use SHA-1 or SHA-256 hash, but instead using: %s",
	"text-hashed store path '%s' must use sha256, not %s",
	"%s is corrupt",
	"expected tag 'contents', got '%s'",
	"expected tag 'executable' or 'contents', got '%s'",
	"expected tag 'entry' or ')', got '%s'",
	"NAR contains invalid file name '%s'",
	"mismatch importing path '%s';\n  specified: %s\n  got:       %s",
	"configuration setting '%s' should be 'auto' or an integer",
	"parsing setting '%s': %s",
	"derivation does not start with 'Derive' or 'DrvWithVersion'",
	"Expected JSON object to contain key '%s' but it doesn't: %s",
	"something created by 'nix-store --export'",
	"value of 'exportReferencesGraph'",
}

// compileForms makes of each form an expression with a group for each part,
// the arguments' groups being those with odd numbers.
func compileForms(forms ...string) []*regexp.Regexp {
	compiled := make([]*regexp.Regexp, len(forms))
	for i, form := range forms {
		form = strings.ReplaceAll(regexp.QuoteMeta(form), "%p", `(?:[^;\n]*)`)
		pieces := strings.Split(form, "%s")
		for j, before := range pieces[:len(pieces)-1] {
			argument := `)(\S+)(`
			switch after := pieces[j+1]; {
			case strings.HasSuffix(before, "'") && strings.HasPrefix(after, "'"):
				argument = `)([^'\n]*)(`
			case after == "":
				argument = `)([^\n]+)(`
			}
			pieces[j] = before + argument
		}
		compiled[i] = regexp.MustCompile("(" + strings.Join(pieces, "") + ")")
	}
	return compiled
}

// highlight marks arguments in magenta, as upstream does with every argument
// of a message (libutil/fmt.hh, Magenta); clients take the marks away where
// their output is no terminal. A text that has marks keeps them.
func highlight(text string) string {
	if strings.Contains(text, "\x1b[") {
		return text
	}
	for _, form := range forms() {
		at := form.FindStringSubmatchIndex(text)
		if at == nil {
			continue
		}
		var b strings.Builder
		b.WriteString(highlightQuoted(text[:at[0]]))
		for group := range slices.Chunk(at[2:], 4) { // a literal and an argument
			b.WriteString(text[group[0]:group[1]])
			if len(group) == 4 {
				b.WriteString(magenta + text[group[2]:group[3]] + normal)
			}
		}
		b.WriteString(highlight(text[at[1]:]))
		return b.String()
	}
	return highlightQuoted(text)
}

func highlightQuoted(text string) string {
	return quoted().ReplaceAllStringFunc(text, func(s string) string {
		if s[0] == '"' {
			return magenta + s + normal
		}
		return "'" + magenta + s[1:len(s)-1] + normal + "'"
	})
}
