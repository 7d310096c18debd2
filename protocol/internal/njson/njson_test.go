package njson

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The texts were made with release 2.34.8: builtins.toJSON of
// builtins.fromJSON. Of floats, those that strconv would spell otherwise are
// among them.
func TestRoundTripLikeUpstream(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"members sorted", ` { "b" : 1 , "a" : [ true , false , null ] } `, `{"a":[true,false,null],"b":1}`},
		{"last duplicate counts", `{"a":1,"a":2}`, `{"a":2}`},
		{"empty", `{"a":{},"b":[]}`, `{"a":{},"b":[]}`},
		{"escapes", `"\u0041\/\b\f\n\r\t\"\\\u001f\u007f\u00e9\ud83d\ude00"`, "\"A/\\b\\f\\n\\r\\t\\\"\\\\\\u001f\x7fé😀\""},
		{"html is not escaped", `"<>&\u2028"`, "\"<>&\u2028\""},
		{"byte order mark", "\xef\xbb\xbf1", "1"},
		{"whole numbers", `[0,-0,18446744073709551615,-9223372036854775808]`, `[0,0,18446744073709551615,-9223372036854775808]`},
		{"too long for whole numbers", `[18446744073709551616,-9223372036854775809]`, `[1.8446744073709552e+19,-9.223372036854776e+18]`},
		{"floats", `[1.0,1e15,1e14,1e-4,1e-5,0.1,1e20,100.0,1.5e-7,4.35,-0.0]`,
			`[1.0,1e+15,100000000000000.0,0.0001,1e-05,0.1,1e+20,100.0,1.5e-07,4.35,-0.0]`},
		{"limits of floats", `[5e-324,2.2250738585072014e-308,1.7976931348623157e308]`,
			`[5e-324,2.2250738585072014e-308,1.7976931348623157e+308]`},
		{"not the nearest", `[1234567890123456.7,9007199254740993.0]`, `[1.2345678901234567e+15,9.007199254740992e+15]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, v.String()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", " ", "{", "[1", "[1,]", `{"a"}`, `{"a":}`, `{a:1}`, `{"a":1,}`, "tru", "01", "-", "1.", "1e", ".5", "+1",
		`"`, `"\x"`, `"\u12"`, `"\ud800"`, `"\ud800\u0041"`, `"\udc00"`, "\"\n\"", "\"\xff\"", "1 2", "nul", "1e999", "\"\\",
		strings.Repeat("[", MaxDepth+1),
	} {
		if v, err := Parse(in); err == nil {
			t.Errorf("Parse(%.20q) = %s, want an error", in, v)
		}
	}
}

func TestSyntaxErrorTellsWhere(t *testing.T) {
	_, err := Parse("{\n  \"a\": x}")
	want := "[json.exception.parse_error.101] parse error at line 2, column 8: syntax error while parsing value - invalid literal; last read: '\"a\": x'"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAccessors(t *testing.T) {
	v, err := Parse(`{"s":"x","u":7,"b":true,"n":null,"a":[1],"o":{"k":"v"},"f":1.5}`)
	if err != nil {
		t.Fatal(err)
	}
	get := func(name string) Value { m, _ := v.Get(name); return m }
	if get("s").Str() != "x" || get("u").Uint() != 7 || !get("b").IsTrue() || len(get("a").Items()) != 1 || len(get("o").Members()) != 1 {
		t.Errorf("accessors of %s do not give what is in it", v)
	}
	if get("u").Str() != "" || get("s").Uint() != 0 || get("s").IsTrue() || get("s").Items() != nil || get("s").Members() != nil {
		t.Errorf("accessors give something of another kind in %s", v)
	}
	var names []string
	for _, m := range v.Members() {
		names = append(names, m.Name+" "+m.Value.TypeName())
	}
	want := []string{"a array", "b boolean", "f number", "n null", "o object", "s string", "u number"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if got := v.With("b", OfBool(false)).With("z", OfStrings([]string{"q"})).String(); !strings.Contains(got, `"b":false`) || !strings.Contains(got, `"z":["q"]`) {
		t.Errorf("With gives %s", got)
	}
	if m, _ := v.Get("b"); !m.IsTrue() {
		t.Error("With changed the original")
	}
	if got, want := TypeError(get("u"), String).Error(), "Expected JSON value to be of type 'string' but it is of type 'number': 7"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestConversionsLikeC(t *testing.T) {
	tests := []struct {
		in      string
		n32     int32
		ok32    bool
		n64     uint64
		isValue bool
	}{
		{"5", 5, true, 5, true},
		{"-5", -5, true, math.MaxUint64 - 4, true},
		{"5000000000", 705032704, true, 5000000000, true},
		{"1.5", 0, false, 1, true},
		{"-1.5", 0, false, math.MaxUint64, true},
		{"16777217.5", 16777217, true, 16777217, true},
		{"1e300", math.MinInt32, true, 1 << 63, false},
		{"true", 0, false, 1, true},
		{`"5"`, 0, false, 0, false},
	}
	for _, tt := range tests {
		v, err := Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if n, ok := v.AsInt32(); n != tt.n32 || ok != tt.ok32 {
			t.Errorf("AsInt32(%s) = %d, %t, want %d, %t", tt.in, n, ok, tt.n32, tt.ok32)
		}
		if n, ok := v.AsUint64(); tt.isValue && (n != tt.n64 || !ok) {
			t.Errorf("AsUint64(%s) = %d, %t, want %d", tt.in, n, ok, tt.n64)
		}
	}
}

func TestIsCanonical(t *testing.T) {
	for _, text := range []string{`{"a":[1,-2,true,false,null,"x\n\"é"],"b":{},"c":[]}`, `""`, "0", "-7", "123456789012345678"} {
		v, err := Parse(text)
		if !IsCanonical(text) || err != nil || v.String() != text {
			t.Errorf("%s does not count as canonical (%v, %v)", text, v, err)
		}
	}
	for _, text := range []string{
		"", `{"b":1,"a":1}`, `{"a":1,"a":1}`, "[1, 2]", "-0", "01", "1.0", "1e5", `"\/"`, "\"\xff\"", "\"\n\"", "[", "[1", `{"a"`, `{"a":`, `{"a":1`,
		`{1:1}`, "[1,]", "tru", "-", `"\`, "1 ", strings.Repeat("[", MaxDepth+2),
	} {
		if IsCanonical(text) {
			t.Errorf("%.20s counts as canonical", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-2,3.5e7,"x\n\u0001"],"b":{}}`, `"\ud83d\ude00"`, "[[[]]]", "-0.0", "1e-400", "18446744073709551616", "null"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		v, err := Parse(in)
		if err != nil {
			return
		}
		text := v.String()
		if IsCanonical(in) && in != text {
			t.Errorf("%q counts as canonical, but is written %q", in, text)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("Parse(%q), which is %q written again: %v", text, in, err)
		}
		if again.String() != text {
			t.Errorf("%q written again is %q, then %q", in, text, again)
		}
	})
}

func FuzzFloat(f *testing.F) {
	for _, seed := range []float64{1, 0.1, 5e-324, math.MaxFloat64, 1234567890123456.7, 1 << 53, 1e22} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, x float64) {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return
		}
		text := string(appendFloat(nil, x))
		v, err := Parse(text)
		if err != nil || v.kind != Float || math.Float64frombits(v.num) != x {
			t.Errorf("%g is written %s, which reads as %v (%v)", x, text, v, err)
		}
	})
}
