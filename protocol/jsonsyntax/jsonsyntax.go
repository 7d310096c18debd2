// Package jsonsyntax says what is wrong with a text that shall be JSON, in the words of the library that upstream has
// (nlohmann's): what a builder, or a derivation's author, got wrong is shown to clients. It makes no values: see
// encoding/json and the packages that read attributes.
package jsonsyntax

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// jsonSyntax reads JSON only to say where it is wrong.
type jsonSyntax struct {
	text         string
	at           int
	line, column int
	before       int    // column before the last byte, when that was the end of a line
	token        []byte // what has been read since the beginning of the last string or number
	problem      string // of the present token, when it is none
}

// What tokens are called in messages.
const (
	tokenBad       = ""
	tokenEnd       = "end of input"
	tokenTrue      = "true literal"
	tokenFalse     = "false literal"
	tokenNull      = "null literal"
	tokenString    = "string literal"
	tokenNumber    = "number literal"
	tokenArray     = "'['"
	tokenObject    = "'{'"
	tokenArrayEnd  = "']'"
	tokenObjectEnd = "'}'"
	tokenColon     = "':'"
	tokenComma     = "','"
	anyToken       = "'[', '{', or a literal"
)

// endOfText is what get returns behind the last byte.
const endOfText = -1

// Problem is the error of a text, with its place; "" if it is JSON.
func Problem(text string) string {
	s := &jsonSyntax{text: text}
	if problem := s.document(); problem != "" {
		return fmt.Sprintf("[json.exception.parse_error.101] parse error at line %d, column %d: %s", s.line+1, s.column, problem)
	}
	return ""
}

// document reads the whole text. It holds the nesting itself, so that depth costs a byte each.
func (s *jsonSyntax) document() string {
	var nesting []byte
	if strings.HasPrefix(s.text, "\ufeff") {
		for range len("\ufeff") {
			s.get()
		}
	}
	token := s.next()
	if token == tokenEnd && s.at == 1 {
		return "attempting to parse an empty input; check that your input string or stream contains the expected JSON"
	}
	for {
		problem, opened := s.begin(token, &nesting)
		if problem != "" {
			return problem
		}
		if opened {
			token = s.next()
			continue
		}
		// A value is complete; with it perhaps what it is in.
		for complete := true; complete; {
			token = s.next()
			if len(nesting) == 0 {
				if token != tokenEnd {
					return s.unexpected(token, "value", tokenEnd)
				}
				return ""
			}
			if problem, complete = s.afterValue(token, &nesting); problem != "" {
				return problem
			}
		}
		token = s.next()
		if nesting[len(nesting)-1] == '{' {
			if problem := s.key(token); problem != "" {
				return problem
			}
			token = s.next()
		}
	}
}

// begin takes a value's first token; opened means that a value inside of it comes next.
func (s *jsonSyntax) begin(token string, nesting *[]byte) (problem string, opened bool) {
	for {
		switch token {
		case tokenTrue, tokenFalse, tokenNull, tokenString, tokenNumber:
			return "", false
		case tokenObject:
			if token = s.next(); token == tokenObjectEnd {
				return "", false
			}
			*nesting = append(*nesting, '{')
			return s.key(token), true
		case tokenArray:
			if token = s.next(); token == tokenArrayEnd {
				return "", false
			}
			*nesting = append(*nesting, '[')
		case tokenBad:
			return s.unexpected(token, "value", ""), false
		default:
			return s.unexpected(token, "value", anyToken), false
		}
	}
}

func (s *jsonSyntax) key(token string) string {
	if token != tokenString {
		return s.unexpected(token, "object key", tokenString)
	}
	if token = s.next(); token != tokenColon {
		return s.unexpected(token, "object separator", tokenColon)
	}
	return ""
}

// afterValue takes what follows a value in an array or object; complete means that this has ended.
func (s *jsonSyntax) afterValue(token string, nesting *[]byte) (problem string, complete bool) {
	end, what := tokenArrayEnd, "array"
	if (*nesting)[len(*nesting)-1] == '{' {
		end, what = tokenObjectEnd, "object"
	}
	switch token {
	case tokenComma:
		return "", false
	case end:
		*nesting = (*nesting)[:len(*nesting)-1]
		return "", true
	}
	return s.unexpected(token, what, end), false
}

func (s *jsonSyntax) unexpected(token, context, expected string) string {
	text := "syntax error while parsing " + context + " - "
	if token == tokenBad {
		text += s.problem + "; last read: '" + s.lastRead() + "'"
	} else {
		text += "unexpected " + token
	}
	if expected != "" {
		text += "; expected " + expected
	}
	return text
}

func (s *jsonSyntax) lastRead() string {
	var b strings.Builder
	for _, c := range s.token {
		if c <= 0x1f {
			fmt.Fprintf(&b, "<U+%04X>", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// get reads one byte; the end of the text counts in the position.
func (s *jsonSyntax) get() int {
	s.column++
	s.at++
	if s.at > len(s.text) {
		return endOfText
	}
	c := s.text[s.at-1]
	s.token = append(s.token, c)
	if c == '\n' {
		s.before = s.column - 1
		s.line, s.column = s.line+1, 0
	}
	return int(c)
}

func (s *jsonSyntax) unget() {
	if s.at <= len(s.text) {
		s.token = s.token[:len(s.token)-1]
		if s.text[s.at-1] == '\n' {
			s.line, s.column = s.line-1, s.before+1
		}
	}
	s.at--
	s.column--
}

func (s *jsonSyntax) bad(problem string) string {
	s.problem = problem
	return tokenBad
}

// next reads a token.
func (s *jsonSyntax) next() string {
	var c int
	for {
		if c = s.get(); c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			break
		}
	}
	switch c {
	case endOfText:
		return tokenEnd
	case '[':
		return tokenArray
	case ']':
		return tokenArrayEnd
	case '{':
		return tokenObject
	case '}':
		return tokenObjectEnd
	case ':':
		return tokenColon
	case ',':
		return tokenComma
	case 't':
		return s.literal("rue", tokenTrue)
	case 'f':
		return s.literal("alse", tokenFalse)
	case 'n':
		return s.literal("ull", tokenNull)
	case '"':
		s.token = append(s.token[:0], '"')
		return s.str()
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		s.token = append(s.token[:0], byte(c))
		return s.number(c)
	}
	return s.bad("invalid literal")
}

func (s *jsonSyntax) literal(rest, token string) string {
	for i := range len(rest) {
		if s.get() != int(rest[i]) {
			return s.bad("invalid literal")
		}
	}
	return token
}

func isDigit(c int) bool { return c >= '0' && c <= '9' }

// digits skips digits and gives what follows them.
func (s *jsonSyntax) digits() int {
	c := s.get()
	for isDigit(c) {
		c = s.get()
	}
	return c
}

func (s *jsonSyntax) number(c int) string {
	if c == '-' {
		if c = s.get(); !isDigit(c) {
			return s.bad("invalid number; expected digit after '-'")
		}
	}
	if c == '0' {
		c = s.get()
	} else {
		c = s.digits()
	}
	if c == '.' {
		if c = s.get(); !isDigit(c) {
			return s.bad("invalid number; expected digit after '.'")
		}
		c = s.digits()
	}
	if c == 'e' || c == 'E' {
		c = s.get()
		if c == '+' || c == '-' {
			if c = s.get(); !isDigit(c) {
				return s.bad("invalid number; expected digit after exponent sign")
			}
		} else if !isDigit(c) {
			return s.bad("invalid number; expected '+', '-', or digit after exponent")
		}
		s.digits()
	}
	s.unget()
	return tokenNumber
}

func (s *jsonSyntax) str() string {
	for {
		switch c := s.get(); {
		case c == endOfText:
			return s.bad("invalid string: missing closing quote")
		case c == '"':
			return tokenString
		case c == '\\':
			if problem := s.escape(); problem != "" {
				return s.bad("invalid string: " + problem)
			}
		case c < 0x20:
			return s.bad("invalid string: control character " + controlCharacter(c))
		case c >= utf8.RuneSelf:
			if !s.restOfRune(byte(c)) {
				return s.bad("invalid string: ill-formed UTF-8 byte")
			}
		}
	}
}

// controlCharacter names one that must not be in a string, and how to write it.
func controlCharacter(c int) string {
	const names = "NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US"
	text := fmt.Sprintf("U+%04X (%s) must be escaped to \\u%04X", c, strings.Fields(names)[c], c)
	if i := strings.IndexByte("\b\t\n\f\r", byte(c)); i >= 0 {
		text += ` or \` + "btnfr"[i:i+1]
	}
	return text
}

// restOfRune reads the bytes behind the first of a character up to the first that is wrong.
func (s *jsonSyntax) restOfRune(first byte) bool {
	start, rest := s.at-1, 0
	switch {
	case first >= 0xc2 && first <= 0xdf:
		rest = 1
	case first >= 0xe0 && first <= 0xef:
		rest = 2
	case first >= 0xf0 && first <= 0xf4:
		rest = 3
	default:
		return false
	}
	for i := range rest {
		c := s.get()
		low, high := 0x80, 0xbf
		if i == 0 {
			switch first {
			case 0xe0:
				low = 0xa0
			case 0xed:
				high = 0x9f
			case 0xf0:
				low = 0x90
			case 0xf4:
				high = 0x8f
			}
		}
		if c < low || c > high {
			return false
		}
	}
	return utf8.ValidString(s.text[start:s.at])
}

const surrogateAlone = "surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF"

// escape reads what follows a backslash.
func (s *jsonSyntax) escape() (problem string) {
	switch s.get() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return ""
	case 'u':
	default:
		return "forbidden character after backslash"
	}
	const digits = `'\u' must be followed by 4 hex digits`
	first, ok := s.hex()
	switch {
	case !ok:
		return digits
	case first >= 0xdc00 && first <= 0xdfff:
		return "surrogate U+DC00..U+DFFF must follow U+D800..U+DBFF"
	case first < 0xd800 || first > 0xdbff:
		return ""
	}
	if s.get() != '\\' || s.get() != 'u' {
		return surrogateAlone
	}
	second, ok := s.hex()
	if !ok {
		return digits
	}
	if second < 0xdc00 || second > 0xdfff {
		return surrogateAlone
	}
	return ""
}

func (s *jsonSyntax) hex() (n int, ok bool) {
	for range 4 {
		c := s.get()
		switch {
		case isDigit(c):
			c -= '0'
		case c >= 'a' && c <= 'f':
			c += 10 - 'a'
		case c >= 'A' && c <= 'F':
			c += 10 - 'A'
		default:
			return 0, false
		}
		n = n<<4 | c
	}
	return n, true
}
