package pathinfo

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"unicode"

	"nixdaemon/protocol/nixhash"
)

// Signature is "<key name>:<base64 of the ed25519 signature>", as text; see
// [ParseSignature].
type Signature string

// ParseSignature reads a signature: a non-empty key name without spaces and a
// base64 text that is not empty once decoded. The length of the signature is not checked
// here, as a key of an unknown kind may have made it. The result is in the
// spelling that writers use (libutil/signature/local-keys.cc).
func ParseSignature(s string) (Signature, error) {
	name, data, err := parseColonBase64(s, "signature")
	if err != nil {
		return "", err
	}
	// Databases separate signatures by spaces and narinfos by lines: such a name would make what others read corrupt.
	if strings.ContainsFunc(name, func(c rune) bool { return unicode.IsSpace(c) || c == 0 }) {
		return "", errors.New("signature is corrupt")
	}
	return joinSignature(name, data, s), nil
}

// parseColonBase64 reads "<name>:<base64>".
func parseColonBase64(s, kind string) (string, []byte, error) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok || name == "" {
		return "", nil, errors.New(kind + " is corrupt")
	}
	data, err := nixhash.DecodeBase64(rest)
	if err != nil {
		return "", nil, err
	}
	if len(data) == 0 {
		return "", nil, errors.New(kind + " is corrupt")
	}
	return name, data, nil
}

// joinSignature spells a signature, with like itself if that is the spelling.
func joinSignature(name string, data []byte, like string) Signature {
	out := make([]byte, 0, len(name)+1+base64.StdEncoding.EncodedLen(len(data)))
	out = append(out, name...)
	out = append(out, ':')
	out = base64.StdEncoding.AppendEncode(out, data)
	if string(out) == like {
		return Signature(like)
	}
	return Signature(out)
}

// NewSignature joins a key's name and the bytes of a signature.
func NewSignature(keyName string, sig []byte) Signature { return joinSignature(keyName, sig, "") }

// KeyName is the part before the colon.
func (s Signature) KeyName() string {
	name, _, _ := strings.Cut(string(s), ":")
	return name
}

// Bytes are the signature itself; nil if s did not come from ParseSignature
// and is none.
func (s Signature) Bytes() []byte {
	_, rest, _ := strings.Cut(string(s), ":")
	data, err := nixhash.DecodeBase64(rest)
	if err != nil {
		return nil
	}
	return data
}

// CompareSignatures orders by key name, then by the signatures' bytes, as
// upstream's sets of signatures do.
func CompareSignatures(a, b Signature) int {
	if a == b {
		return 0
	}
	if c := strings.Compare(a.KeyName(), b.KeyName()); c != 0 {
		return c
	}
	return slices.Compare(a.Bytes(), b.Bytes())
}

// SortSignatures sorts signatures in place and drops duplicates: the form of a
// set.
func SortSignatures(sigs []Signature) []Signature {
	if len(sigs) > 1 {
		slices.SortFunc(sigs, CompareSignatures)
	}
	return slices.Compact(sigs)
}

// MergeSignatures gives the union of two sets as a new slice, or one of them
// if it holds the other.
func MergeSignatures(a, b []Signature) []Signature {
	if len(b) == 0 {
		return a
	}
	if len(a) == 0 {
		return b
	}
	return SortSignatures(slices.Concat(a, b))
}

// ParseSignatures reads signatures into a set.
func ParseSignatures(texts []string) ([]Signature, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	sigs := make([]Signature, len(texts))
	for i, text := range texts {
		sig, err := ParseSignature(text)
		if err != nil {
			return nil, err
		}
		sigs[i] = sig
	}
	return SortSignatures(sigs), nil
}

// SignatureStrings gives the texts in order.
func SignatureStrings(sigs []Signature) []string {
	out := make([]string, len(sigs))
	for i, sig := range sigs {
		out[i] = string(sig)
	}
	return out
}

// SecretKey signs fingerprints.
type SecretKey struct {
	name string
	key  ed25519.PrivateKey
}

// ParseSecretKey reads a key file's "<name>:<base64 of 64 bytes>". Its errors
// do not repeat the text.
func ParseSecretKey(s string) (SecretKey, error) {
	name, data, err := parseColonBase64(s, "key")
	if err != nil {
		return SecretKey{}, err
	}
	if len(data) != ed25519.PrivateKeySize {
		return SecretKey{}, errors.New("secret key is not valid")
	}
	return SecretKey{name, ed25519.PrivateKey(data)}, nil
}

// Name is the key's name.
func (k SecretKey) Name() string { return k.name }

// Sign signs a fingerprint.
func (k SecretKey) Sign(fingerprint string) Signature {
	return NewSignature(k.name, ed25519.Sign(k.key, []byte(fingerprint)))
}

// Public is the key that verifies what this one signs.
func (k SecretKey) Public() PublicKey {
	return PublicKey{k.name, k.key.Public().(ed25519.PublicKey)}
}

// PublicKey verifies signatures.
type PublicKey struct {
	name string
	key  ed25519.PublicKey
}

// ParsePublicKey reads "<name>:<base64 of 32 bytes>".
func ParsePublicKey(s string) (PublicKey, error) {
	name, data, err := parseColonBase64(s, "key")
	if err != nil {
		return PublicKey{}, err
	}
	if len(data) != ed25519.PublicKeySize {
		return PublicKey{}, errors.New("public key is not valid")
	}
	return PublicKey{name, ed25519.PublicKey(data)}, nil
}

// Name is the key's name.
func (k PublicKey) Name() string { return k.name }

// String writes what ParsePublicKey reads.
func (k PublicKey) String() string { return string(NewSignature(k.name, k.key)) }

// Keys are trusted public keys by name. The nil Keys trusts nobody.
type Keys map[string]PublicKey

// ParseKeys reads the values of the setting trusted-public-keys. Of keys with
// the same name the first counts.
func ParseKeys(texts []string) (Keys, error) {
	keys := make(Keys, len(texts))
	for _, text := range texts {
		k, err := ParsePublicKey(text)
		if err != nil {
			return nil, err
		}
		keys.Add(k)
	}
	return keys, nil
}

// Add trusts a key unless one of its name is there already.
func (ks Keys) Add(k PublicKey) {
	if _, taken := ks[k.name]; !taken {
		ks[k.name] = k
	}
}

// Verify tells whether a trusted key made the signature of that fingerprint.
// A signature of the wrong length is not valid.
func (ks Keys) Verify(fingerprint string, sig Signature) bool {
	k, ok := ks[sig.KeyName()]
	if !ok {
		return false
	}
	data := sig.Bytes()
	return len(data) == ed25519.SignatureSize && ed25519.Verify(k.key, []byte(fingerprint), data)
}

// Count is the number of signatures that trusted keys made of a fingerprint.
func (ks Keys) Count(fingerprint string, sigs []Signature) int {
	good := 0
	for _, sig := range sigs {
		if ks.Verify(fingerprint, sig) {
			good++
		}
	}
	return good
}
