package nixhash

import "fmt"

// Nix32Alphabet leaves out e, o, u and t, so that no rude word appears
// (libutil/base-nix-32.hh).
const Nix32Alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

// nix32Value is the value of each byte as a digit, or notDigit.
var nix32Value = digitValues(Nix32Alphabet)

// IsNix32 tells whether the byte is a digit of nix32.
func IsNix32(c byte) bool { return nix32Value[c] != notDigit }

// IndexNotNix32 is the place of the first byte that is not a digit, or -1.
func IndexNotNix32(s string) int {
	for i := range len(s) {
		if nix32Value[s[i]] == notDigit {
			return i
		}
	}
	return -1
}

// Nix32Len is the number of digits for so many bytes.
func Nix32Len(size int) int { return (size*8 + 4) / 5 }

// EncodeNix32 writes bytes in Nix's base 32: the bytes are a little-endian
// number whose most significant digit is written first.
func EncodeNix32(data []byte) string {
	var room [(maxSize*8 + 4) / 5]byte
	return string(AppendNix32(room[:0], data))
}

// AppendNix32 appends what EncodeNix32 gives to dst.
func AppendNix32(dst, data []byte) []byte {
	length := Nix32Len(len(data))
	start := len(dst)
	for range length {
		dst = append(dst, 0)
	}
	out := dst[start:]
	// Bits are taken from the lowest byte up and written from the last digit
	// down, so that no digit needs a division.
	var bits, count uint
	at := length
	for _, b := range data {
		bits |= uint(b) << count
		for count += 8; count >= 5; count -= 5 {
			at--
			out[at] = Nix32Alphabet[bits&0x1f]
			bits >>= 5
		}
	}
	if at > 0 {
		out[0] = Nix32Alphabet[bits&0x1f]
	}
	return dst
}

// DecodeNix32 reads what EncodeNix32 writes. Digits that do not fit the
// byte count are an error, so that each value has one spelling.
func DecodeNix32(s string) ([]byte, error) {
	out := make([]byte, len(s)*5/8)
	if decodeNix32(out, s) == len(out) {
		return out, nil
	}
	for i := len(s) - 1; i >= 0; i-- {
		if !IsNix32(s[i]) {
			return nil, fmt.Errorf("invalid character in Nix32 (Nix's Base32 variation) string: '%s'", s[i:i+1])
		}
	}
	return nil, badHash("invalid Nix32 (Nix's Base32 variation) string '%s'", s)
}

// decodeNix32 fills dst and gives the number of bytes: 0 when a digit is none,
// and one more than dst holds when bits are left over.
func decodeNix32(dst []byte, s string) int {
	var bits, count uint
	at := 0
	for i := len(s) - 1; i >= 0; i-- {
		digit := nix32Value[s[i]]
		if digit == notDigit {
			return 0
		}
		bits |= uint(digit) << count
		if count += 5; count >= 8 && at < len(dst) {
			dst[at] = byte(bits)
			at++
			bits >>= 8
			count -= 8
		}
	}
	if bits != 0 {
		at++
	}
	return at
}
