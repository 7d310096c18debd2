package nixhash

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// Encoding is a text form of a digest.
type Encoding uint8

// The four forms (libutil/hash.hh, HashFormat).
const (
	Base16 Encoding = iota
	// Nix32 is base 32 with Nix's alphabet, least significant digit last.
	Nix32
	Base64
	// SRI is "<algo>-<base64>", as in web pages' subresource integrity.
	SRI
)

func (e Encoding) append(dst, digest []byte) []byte {
	switch e {
	case Base16:
		return hex.AppendEncode(dst, digest)
	case Nix32:
		return AppendNix32(dst, digest)
	}
	return base64.StdEncoding.AppendEncode(dst, digest)
}

func base16Len(size int) int { return size * 2 }

func base64Len(size int) int { return (size + 2) / 3 * 4 }

// decodeBase16 gives the number of bytes, 0 when a digit is none.
func decodeBase16(dst []byte, s string) int {
	var digits [2 * maxSize]byte
	n, err := hex.Decode(dst, digits[:copy(digits[:], s)])
	if err != nil {
		return 0
	}
	return n
}

// decodeBase64 gives the number of bytes, which may be more than dst holds,
// and 0 when a digit is none.
func decodeBase64(dst []byte, s string) int {
	var digits [base64Digits]byte
	if len(s) == base64Len(len(dst)) {
		if n, err := base64.StdEncoding.Decode(digits[:], []byte(s)); err == nil {
			copy(dst, digits[:n])
			return n
		}
	}
	data, err := DecodeBase64(s)
	if err != nil {
		return 0
	}
	copy(dst, data)
	return len(data)
}

// base64Digits is the length of the longest digest in base64, rounded up.
const base64Digits = (maxSize + 2) / 3 * 4

// base64Value is the value of each byte as a digit, or notDigit.
var base64Value = digitValues("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")

// notDigit marks the bytes that are not digits.
const notDigit = 0xff

func digitValues(alphabet string) (table [256]byte) {
	for i := range table {
		table[i] = notDigit
	}
	for i := range len(alphabet) {
		table[alphabet[i]] = byte(i)
	}
	return table
}

// DecodeBase64 reads base64 as leniently as upstream does: it ends at the
// first '=', whose absence is no error, newlines are skipped and left-over bits
// are dropped (libutil/base-n.cc).
func DecodeBase64(s string) ([]byte, error) {
	out := make([]byte, 0, len(s)/4*3+3)
	var bits, count uint
	for i := range len(s) {
		if s[i] == '=' {
			break
		}
		if s[i] == '\n' {
			continue
		}
		digit := base64Value[s[i]]
		if digit == notDigit {
			return nil, fmt.Errorf("invalid character in Base64 string: '%s'", s[i:i+1])
		}
		bits = bits<<6 | uint(digit)
		if count += 6; count >= 8 {
			count -= 8
			out = append(out, byte(bits>>count))
		}
	}
	return out, nil
}
