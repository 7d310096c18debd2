package njson

import (
	"bytes"
	"math"
	"strconv"
)

// Numbers from 1e-4 to below 1e15 are written without an exponent.
const (
	minPlainExp = -4
	maxPlainExp = 15
)

// appendFloat writes a number as upstream's library does: the digits that
// grisu2 finds, always with a point or an exponent, the exponent with its sign
// and at least two digits.
func appendFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	if math.Signbit(f) {
		dst = append(dst, '-')
		f = -f
	}
	if f == 0 {
		return append(dst, "0.0"...)
	}
	digits, exp := shortest(f)
	return appendDecimal(dst, digits, exp)
}

// appendDecimal writes digits * 10^exp.
func appendDecimal(dst, digits []byte, exp int) []byte {
	point := len(digits) + exp
	switch {
	case exp >= 0 && point <= maxPlainExp:
		dst = append(dst, digits...)
		dst = append(dst, bytes.Repeat([]byte{'0'}, exp)...)
		return append(dst, ".0"...)
	case point > 0 && point <= maxPlainExp:
		dst = append(dst, digits[:point]...)
		dst = append(dst, '.')
		return append(dst, digits[point:]...)
	case point > minPlainExp && point <= 0:
		dst = append(dst, "0."...)
		dst = append(dst, bytes.Repeat([]byte{'0'}, -point)...)
		return append(dst, digits...)
	}
	dst = append(dst, digits[0])
	if len(digits) > 1 {
		dst = append(dst, '.')
		dst = append(dst, digits[1:]...)
	}
	return appendExponent(dst, point-1)
}

func appendExponent(dst []byte, exp int) []byte {
	sign := byte('+')
	if exp < 0 {
		sign, exp = '-', -exp
	}
	dst = append(dst, 'e', sign)
	if exp < 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, int64(exp), 10)
}

// AsInt32 is the number as a 32-bit C int when it is whole once rounded to
// single precision; that is upstream's test for numbers that a shell may see.
// Whole numbers wrap around; other numbers out of range give the lowest int,
// as the x86 instruction does.
func (v Value) AsInt32() (int32, bool) {
	switch v.kind {
	case Signed, Unsigned:
		return int32(v.num), true
	case Float:
		f := math.Float64frombits(v.num)
		if single := float64(float32(f)); math.Ceil(single) != single {
			return 0, false
		}
		if f > -2147483649 && f < 2147483648 {
			return int32(f), true
		}
		return math.MinInt32, true
	}
	return 0, false
}

// AsUint64 is a number or truth value converted as C++ does: fractions are cut
// off and negative numbers wrap around.
func (v Value) AsUint64() (uint64, bool) {
	switch v.kind {
	case Signed, Unsigned, Bool:
		return v.num, true
	case Float:
		f := math.Float64frombits(v.num)
		if f < 0 {
			return uint64(int64(f)), true
		}
		return uint64(f), true
	}
	return 0, false
}
