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

func (e Encoding) encode(digest []byte) string {
	switch e {
	case Base16:
		return hex.EncodeToString(digest)
	case Nix32:
		return EncodeNix32(digest)
	}
	return base64.StdEncoding.EncodeToString(digest)
}

// Nix32Alphabet leaves out e, o, u and t, so that no rude word appears
// (libutil/base-nix-32.hh).
const Nix32Alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

// notNix32 marks the bytes that are not digits in nix32Digits.
const notNix32 = 0xff

// nix32Digits is the value of each byte as a digit.
var nix32Digits = func() (table [256]byte) {
	for i := range table {
		table[i] = notNix32
	}
	for i := range len(Nix32Alphabet) {
		table[Nix32Alphabet[i]] = byte(i)
	}
	return table
}()

// IsNix32 tells whether the byte is a digit of nix32.
func IsNix32(c byte) bool { return nix32Digits[c] != notNix32 }

// Nix32Len is the number of digits for so many bytes.
func Nix32Len(size int) int { return (size*8 + 4) / 5 }

func base16Len(size int) int { return size * 2 }

func base64Len(size int) int { return (size + 2) / 3 * 4 }

// EncodeNix32 writes bytes in Nix's base 32: the digest is a little-endian
// number whose most significant digit is written first.
func EncodeNix32(data []byte) string {
	out := make([]byte, Nix32Len(len(data)))
	for i := range out {
		bit := (len(out) - 1 - i) * 5
		at, shift := bit/8, bit%8
		digit := data[at] >> shift
		if shift > 3 && at+1 < len(data) {
			digit |= data[at+1] << (8 - shift)
		}
		out[i] = Nix32Alphabet[digit&0x1f]
	}
	return string(out)
}

// DecodeNix32 reads what EncodeNix32 writes. Digits that do not fit the
// byte count are an error, so that each value has one spelling.
func DecodeNix32(s string) ([]byte, error) {
	out := make([]byte, len(s)*5/8)
	for i := range len(s) {
		digit := nix32Digits[s[len(s)-1-i]]
		if digit == notNix32 {
			return nil, fmt.Errorf("invalid character in Nix32 (Nix's Base32 variation) string: '%c'", s[len(s)-1-i])
		}
		at, shift := i*5/8, i*5%8
		carry := byte(uint16(digit) >> (8 - shift))
		if at < len(out) {
			out[at] |= digit << shift
		} else {
			carry |= digit
		}
		switch {
		case at+1 < len(out):
			out[at+1] |= carry
		case carry != 0:
			return nil, fmt.Errorf("invalid Nix32 (Nix's Base32 variation) string '%s'", s)
		}
	}
	return out, nil
}

func decodeBase16(s string) ([]byte, error) {
	digest, err := hex.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("invalid base-16 hash: '%s'", s)
	}
	return digest, nil
}

func decodeBase64(s string) ([]byte, error) {
	digest, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("invalid character in Base64 string: '%s'", s)
	}
	return digest, nil
}
