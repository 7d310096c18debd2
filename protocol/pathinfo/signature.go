package pathinfo

import (
	"fmt"
	"strings"
)

// Signature is "<key name>:<base64 of the ed25519 signature>", as text; see
// [ParseSignature].
type Signature string

// ParseSignature checks the form of a signature: a non-empty key name and a
// non-empty rest with a colon between (libutil/signature/local-keys.cc).
func ParseSignature(s string) (Signature, error) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok || name == "" || rest == "" {
		return "", fmt.Errorf("signature is corrupt: '%s'", s)
	}
	return Signature(s), nil
}

// KeyName is the part before the colon.
func (s Signature) KeyName() string {
	name, _, _ := strings.Cut(string(s), ":")
	return name
}
