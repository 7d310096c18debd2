package njson

import (
	"strings"
	"unicode/utf8"
)

// IsCanonical tells, without building a value, that a text is just as
// [Value.Append] writes it. It may miss some such texts: those with floats,
// escaped names, or rare escapes.
func IsCanonical(text string) bool {
	s := &scanner{text: text}
	return s.value(0) && s.at == len(text)
}

type scanner struct {
	text string
	at   int
}

// next reads a byte if it is c.
func (s *scanner) next(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *scanner) value(depth int) bool {
	if s.at == len(s.text) || depth > MaxDepth {
		return false
	}
	switch c := s.text[s.at]; c {
	case '"':
		return s.str()
	case '{':
		return s.object(depth + 1)
	case '[':
		return s.array(depth + 1)
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

func (s *scanner) word(word string) bool {
	if !strings.HasPrefix(s.text[s.at:], word) {
		return false
	}
	s.at += len(word)
	return true
}

func (s *scanner) array(depth int) bool {
	s.at++
	if s.next(']') {
		return true
	}
	for s.value(depth) {
		if !s.next(',') {
			return s.next(']')
		}
	}
	return false
}

func (s *scanner) object(depth int) bool {
	s.at++
	if s.next('}') {
		return true
	}
	for last, first := "", true; ; first = false {
		start := s.at
		if !s.str() {
			return false
		}
		name := s.text[start+1 : s.at-1]
		if !first && name <= last || strings.IndexByte(name, '\\') >= 0 {
			return false
		}
		last = name
		if !s.next(':') || !s.value(depth) {
			return false
		}
		if !s.next(',') {
			return s.next('}')
		}
	}
}

func (s *scanner) str() bool {
	if !s.next('"') {
		return false
	}
	start, ascii := s.at, true
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return ascii || utf8.ValidString(s.text[start:s.at])
		case c == '\\':
			s.at++
			if s.at == len(s.text) || strings.IndexByte(`"\bfnrt`, s.text[s.at]) < 0 {
				return false
			}
		case c < ' ':
			return false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return false
}

// number reads whole numbers that surely fit.
func (s *scanner) number() bool {
	const most = 18
	negative := s.next('-')
	start := s.at
	for s.at < len(s.text) && s.text[s.at] >= '0' && s.text[s.at] <= '9' {
		s.at++
	}
	digits := s.text[start:s.at]
	if len(digits) == 0 || len(digits) > most || digits[0] == '0' && (negative || len(digits) > 1) {
		return false
	}
	return s.at == len(s.text) || strings.IndexByte(".eE", s.text[s.at]) < 0
}
