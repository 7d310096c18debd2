package jsonsyntax

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestProblem(t *testing.T) {
	const while = "syntax error while parsing "
	for _, tt := range []struct{ text, at, problem string }{
		{"broken", "1, column 1", while + "value - invalid literal; last read: 'b'"},
		{"", "1, column 1", "attempting to parse an empty input; check that your input string or stream contains the expected JSON"},
		{"{", "1, column 2", while + "object key - unexpected end of input; expected string literal"},
		{"{} {", "1, column 4", while + "value - unexpected '{'; expected end of input"},
		{"trux", "1, column 4", while + "value - invalid literal; last read: 'trux'"},
		{"[1,\n 2}", "2, column 3", while + "array - unexpected '}'; expected ']'"},
		{"[1, ]", "1, column 5", while + "value - unexpected ']'; expected '[', '{', or a literal"},
		{`{"a" 1}`, "1, column 6", while + "object separator - unexpected number literal; expected ':'"},
		{`{"a":1 "b"}`, "1, column 10", while + "object - unexpected string literal; expected '}'"},
		{`{"a":1,}`, "1, column 8", while + "object key - unexpected '}'; expected string literal"},
		{`"ab`, "1, column 4", while + `value - invalid string: missing closing quote; last read: '"ab'`},
		{"\"a\tb\"", "1, column 3", while + `value - invalid string: control character U+0009 (HT) must be escaped to \u0009 or \t; last read: '"a<U+0009>'`},
		{`"\x"`, "1, column 3", while + `value - invalid string: forbidden character after backslash; last read: '"\x'`},
		{`"\u12x`, "1, column 6", while + `value - invalid string: '\u' must be followed by 4 hex digits; last read: '"\u12x'`},
		{"1 x", "1, column 3", while + "value - invalid literal; last read: '1 x'; expected end of input"},
		{"\ufeff1 2", "1, column 6", while + "value - unexpected number literal; expected end of input"},
		{"-x", "1, column 2", while + "value - invalid number; expected digit after '-'; last read: '-x'"},
		{"1.", "1, column 3", while + "value - invalid number; expected digit after '.'; last read: '1.'"},
	} {
		want := "[json.exception.parse_error.101] parse error at line " + tt.at + ": " + tt.problem
		if got := Problem(tt.text); got != want {
			t.Errorf("%q:\n got %s\nwant %s", tt.text, got, want)
		}
	}
}

func FuzzProblem(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"a":[1,-2.5e+7,null,true,false,{"b":"\ud834\udd1e\n"}],"c":{}}`, "[[[", "[]]", `"\ud834"`, "01", "\xff", "\"\xed\xa0\x80\""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		problem := Problem(text)
		// The standard library takes what is not UTF-8 and halves of pairs, but no byte order mark, and a bounded depth only.
		if !utf8.ValidString(text) || strings.HasPrefix(text, "\ufeff") || strings.Contains(text, `\u`) || strings.Count(text, "[")+strings.Count(text, "{") > 9000 {
			return
		}
		if good := json.Valid([]byte(text)); good != (problem == "") {
			t.Errorf("%q: valid %v, problem %q", text, good, problem)
		}
	})
}
