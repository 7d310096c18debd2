package ssh

import (
	"errors"
	"strings"
)

// Errors of SplitWords.
var (
	errDoubleQuote = errors.New("unterminated double quote")
	errSingleQuote = errors.New("unterminated single quote")
)

// SplitWords splits a text into words as a shell does, with quotes and
// backslashes but nothing else of a shell: only blanks and tabs separate
// (libutil/strings.cc, shellSplitString). A backslash at the end is dropped.
func SplitWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	started := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case ' ', '\t':
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
			continue
		case '\\':
			if i++; i == len(text) {
				continue
			}
			word.WriteByte(text[i])
		case '\'':
			quoted, _, closed := strings.Cut(text[i+1:], "'")
			if !closed {
				return nil, errSingleQuote
			}
			word.WriteString(quoted)
			i += len(quoted) + 1
		case '"':
			n, closed := doubleQuoted(&word, text[i+1:])
			if !closed {
				return nil, errDoubleQuote
			}
			i += n
		default:
			word.WriteByte(c)
		}
		started = true
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}

// doubleQuoted appends what stands before the closing quote, and gives the
// length of the text up to and with that quote.
func doubleQuoted(word *strings.Builder, text string) (n int, closed bool) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return i + 1, true
		case c == '\\' && i+1 < len(text):
			i++
			if strings.IndexByte("$`\"\\", text[i]) < 0 {
				word.WriteByte('\\')
			}
			word.WriteByte(text[i])
		default:
			word.WriteByte(c)
		}
	}
	return 0, false
}
