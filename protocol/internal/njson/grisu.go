package njson

import (
	"strconv"
)

// shortest gives the digits and the power of ten of a positive number.
func shortest(f float64) ([]byte, int) {
	text := strconv.AppendFloat(nil, f, 'e', -1, 64)
	var digits []byte
	for i, c := range text {
		if c == 'e' {
			exp, _ := strconv.Atoi(string(text[i+1:]))
			return digits, exp - (len(digits) - 1)
		}
		if c != '.' {
			digits = append(digits, c)
		}
	}
	return digits, 0
}
