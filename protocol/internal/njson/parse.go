package njson

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"nixdaemon/protocol/jsonsyntax"
)

// MaxDepth bounds how deep arrays and objects may nest.
const MaxDepth = 10000

// SyntaxError says why a text is not JSON, and where that shows.
type SyntaxError struct{ Problem string }

func (e *SyntaxError) Error() string { return e.Problem }

type parser struct {
	text  string
	at    int
	depth int
}

// Parse reads one JSON text. Strings must be valid UTF-8.
func Parse(text string) (Value, error) {
	p := &parser{text: text}
	if strings.HasPrefix(text, "\xef\xbb\xbf") {
		p.at = 3
	}
	v, err := p.value()
	if p.space(); err == nil && p.at < len(p.text) {
		err = p.fail("unexpected text after the value")
	}
	if _, wrong := err.(*SyntaxError); wrong {
		// Upstream's library has its own words, and its own idea of where it is.
		if problem := jsonsyntax.Problem(text); problem != "" {
			return Value{}, &SyntaxError{problem}
		}
	}
	if err != nil {
		return Value{}, err
	}
	return v, nil
}

// fail says what upstream's library would not mind.
func (p *parser) fail(problem string) error { return &SyntaxError{problem} }

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

// peek skips white space and gives the next byte, 0 at the end.
func (p *parser) peek() byte {
	p.space()
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *parser) value() (Value, error) {
	switch c := p.peek(); {
	case c == '{':
		return p.nested((*parser).object)
	case c == '[':
		return p.nested((*parser).array)
	case c == '"':
		s, err := p.str()
		return Of(s), err
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	case c == 't':
		return p.literal("true", OfBool(true))
	case c == 'f':
		return p.literal("false", OfBool(false))
	case c == 'n':
		return p.literal("null", Value{})
	}
	return Value{}, p.fail("syntax error while parsing value - unexpected text")
}

func (p *parser) literal(word string, v Value) (Value, error) {
	if !strings.HasPrefix(p.text[p.at:], word) {
		return Value{}, p.fail("syntax error while parsing value - invalid literal")
	}
	p.at += len(word)
	return v, nil
}

func (p *parser) nested(read func(*parser) (Value, error)) (Value, error) {
	if p.depth++; p.depth > MaxDepth {
		return Value{}, p.fail("values are nested too deeply")
	}
	p.at++
	v, err := read(p)
	p.depth--
	return v, err
}

func (p *parser) array() (Value, error) {
	var items []Value
	if p.peek() == ']' {
		p.at++
		return OfArray(nil), nil
	}
	for {
		v, err := p.value()
		if err != nil {
			return Value{}, err
		}
		items = append(items, v)
		more, err := p.next(']')
		if !more {
			return OfArray(items), err
		}
	}
}

func (p *parser) object() (Value, error) {
	var members []Member
	if p.peek() == '}' {
		p.at++
		return OfObject(nil), nil
	}
	for {
		m, err := p.member()
		if err != nil {
			return Value{}, err
		}
		members = append(members, m)
		more, err := p.next('}')
		if !more {
			return OfObject(members), err
		}
	}
}

func (p *parser) member() (Member, error) {
	if p.peek() != '"' {
		return Member{}, p.fail("syntax error while parsing object key - unexpected text; expected string literal")
	}
	name, err := p.str()
	if err != nil {
		return Member{}, err
	}
	if p.peek() != ':' {
		return Member{}, p.fail("syntax error while parsing object separator - unexpected text; expected ':'")
	}
	p.at++
	v, err := p.value()
	return Member{name, v}, err
}

// next reads a comma, or the closing byte and then reports false.
func (p *parser) next(closing byte) (bool, error) {
	switch p.peek() {
	case ',':
		p.at++
		return true, nil
	case closing:
		p.at++
		return false, nil
	}
	return false, p.fail("syntax error while parsing value - unexpected text; expected ',' or '" + string(closing) + "'")
}

func (p *parser) number() (Value, error) {
	start := p.at
	if p.text[p.at] == '-' {
		p.at++
	}
	whole := true
	if !p.digits() {
		return Value{}, p.fail("syntax error while parsing value - invalid number; expected digit")
	}
	if first := strings.TrimPrefix(p.text[start:p.at], "-"); len(first) > 1 && first[0] == '0' {
		p.at = start + 1
		return Value{}, p.fail("syntax error while parsing value - unexpected number literal")
	}
	if p.at < len(p.text) && p.text[p.at] == '.' {
		p.at++
		if whole = false; !p.digits() {
			return Value{}, p.fail("syntax error while parsing value - invalid number; expected digit after '.'")
		}
	}
	if p.at < len(p.text) && p.text[p.at]|0x20 == 'e' {
		p.at++
		if p.at < len(p.text) && (p.text[p.at] == '+' || p.text[p.at] == '-') {
			p.at++
		}
		if whole = false; !p.digits() {
			return Value{}, p.fail("syntax error while parsing value - invalid number; expected digit after exponent sign")
		}
	}
	return p.convert(p.text[start:p.at], whole)
}

func (p *parser) digits() bool {
	start := p.at
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		p.at++
	}
	return p.at > start
}

// convert gives whole numbers that fit as such, all others as floats.
func (p *parser) convert(text string, whole bool) (Value, error) {
	if whole && text[0] != '-' {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			return Value{kind: Unsigned, num: n}, nil
		}
	} else if whole {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return Value{kind: Signed, num: uint64(n)}, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return Value{}, fmt.Errorf("[json.exception.out_of_range.406] number overflow parsing '%s'", text)
	}
	return Value{kind: Float, num: math.Float64bits(f)}, nil
}

// str reads a quoted string.
func (p *parser) str() (string, error) {
	p.at++
	start := p.at
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == '"':
			s := p.text[start:p.at]
			p.at++
			return s, p.checkUTF8(s)
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			return "", p.fail("syntax error while parsing value - invalid string: control character must be escaped")
		}
		p.at++
	}
	return "", p.fail("syntax error while parsing value - invalid string: missing closing quote")
}

func (p *parser) checkUTF8(s string) error {
	if !utf8.ValidString(s) {
		return p.fail("syntax error while parsing value - invalid string: ill-formed UTF-8 byte")
	}
	return nil
}

// escaped reads on from the first backslash of a string that began at start.
func (p *parser) escaped(start int) (string, error) {
	out := []byte(p.text[start:p.at])
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == '"':
			p.at++
			return string(out), p.checkUTF8(string(out))
		case c == '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		case c < ' ':
			return "", p.fail("syntax error while parsing value - invalid string: control character must be escaped")
		default:
			end := p.at + 1
			for end < len(p.text) && p.text[end] >= ' ' && p.text[end] != '"' && p.text[end] != '\\' {
				end++
			}
			out = append(out, p.text[p.at:end]...)
			p.at = end
		}
	}
	return "", p.fail("syntax error while parsing value - invalid string: missing closing quote")
}

func (p *parser) escape() (rune, error) {
	if p.at+1 >= len(p.text) {
		return 0, p.fail("syntax error while parsing value - invalid string: missing closing quote")
	}
	c := p.text[p.at+1]
	p.at += 2
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		return p.unicode()
	}
	return 0, p.fail("syntax error while parsing value - invalid string: forbidden character after backslash")
}

// unicode reads the digits after \u and, for a surrogate, its other half.
func (p *parser) unicode() (rune, error) {
	first, err := p.hex4()
	if err != nil || !utf16.IsSurrogate(first) {
		return first, err
	}
	if !strings.HasPrefix(p.text[p.at:], `\u`) {
		return 0, p.fail(`syntax error while parsing value - invalid string: surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF`)
	}
	p.at += 2
	second, err := p.hex4()
	if err != nil {
		return 0, err
	}
	r := utf16.DecodeRune(first, second)
	if r == utf8.RuneError {
		return 0, p.fail(`syntax error while parsing value - invalid string: surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF`)
	}
	return r, nil
}

func (p *parser) hex4() (rune, error) {
	if p.at+4 > len(p.text) {
		p.at = len(p.text)
		return 0, p.fail(`syntax error while parsing value - invalid string: '\u' must be followed by 4 hex digits`)
	}
	n, err := strconv.ParseUint(p.text[p.at:p.at+4], 16, 16)
	if err != nil {
		return 0, p.fail(`syntax error while parsing value - invalid string: '\u' must be followed by 4 hex digits`)
	}
	p.at += 4
	return rune(n), nil
}
