package pathinfo

import (
	"fmt"
	"strings"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// DrvOutput names an output of a derivation. Releases before 2.35 key it by
// the derivation's hash modulo (DrvHash), later ones by its path (DrvPath); a
// value may carry either or both.
type DrvOutput struct {
	DrvHash nixhash.Hash
	DrvPath storepath.Path
	Output  string
}

// ParseDrvOutput reads the id of releases before 2.35, "<hash>!<output>"
// (libstore/realisation.cc).
func ParseDrvOutput(s string) (DrvOutput, error) {
	hash, output, ok := strings.Cut(s, "!")
	if !ok {
		return DrvOutput{}, fmt.Errorf("Invalid derivation output id %s", s)
	}
	h, err := nixhash.Parse(hash)
	if err != nil {
		return DrvOutput{}, err
	}
	return DrvOutput{DrvHash: h, Output: output}, nil
}

// ParseDrvPathOutput reads the id of release 2.35 and later,
// "<derivation path>^<output>".
func ParseDrvPathOutput(dir storepath.Dir, s string) (DrvOutput, error) {
	at := strings.LastIndexByte(s, '^')
	if at < 0 {
		return DrvOutput{}, fmt.Errorf("Invalid derivation output id '%s': missing '^'", s)
	}
	p, err := dir.Parse(s[:at])
	if err != nil {
		return DrvOutput{}, err
	}
	return DrvOutput{DrvPath: p, Output: s[at+1:]}, nil
}

// HashID is "sha256:<base16>!<output>", the id of releases before 2.35.
func (id DrvOutput) HashID() string {
	return id.DrvHash.Format(nixhash.Base16, true) + "!" + id.Output
}

// PathID is "<derivation path>^<output>", the id of release 2.35 and later.
func (id DrvOutput) PathID(dir storepath.Dir) string {
	return dir.Print(id.DrvPath) + "^" + id.Output
}

// String is the id in messages: that of the generation whose key is known.
func (id DrvOutput) String() string {
	if id.DrvHash.IsZero() {
		return id.DrvPath.Base() + "^" + id.Output
	}
	return id.HashID()
}

// DummyID is the id under which release 2.35 and later tell of an output to
// peers that know only the older ids: a hash of zeros.
func DummyID(output string) string {
	return "sha256:" + strings.Repeat("0", 64) + "!" + output
}

// Realisation says which path an output of a derivation became.
type Realisation struct {
	ID      DrvOutput
	OutPath storepath.Path
	// Sigs is a sorted set.
	Sigs []Signature
	// Dependent maps the ids ("sha256:<base16>!<output>") of the realisations
	// that this one was built from to their paths (releases before 2.35).
	Dependent map[string]storepath.Path
}

// SignByHash adds a signature of the fingerprint that names the derivation's
// hash modulo. r.Sigs is replaced, not changed.
func (r *Realisation) SignByHash(key SecretKey) {
	r.Sigs = MergeSignatures(r.Sigs, []Signature{key.Sign(r.HashFingerprint())})
}

// SignByPath adds a signature of the fingerprint that names the derivation's
// path. r.Sigs is replaced, not changed.
func (r *Realisation) SignByPath(key SecretKey) {
	r.Sigs = MergeSignatures(r.Sigs, []Signature{key.Sign(r.PathFingerprint())})
}

// CountRealisation is the number of signatures by trusted keys, of either
// generation's fingerprint as far as the realisation's id has what it names.
func (ks Keys) CountRealisation(r *Realisation) int {
	if len(r.Sigs) == 0 || len(ks) == 0 {
		return 0
	}
	good := 0
	if !r.ID.DrvHash.IsZero() {
		good += ks.Count(r.HashFingerprint(), r.Sigs)
	}
	if !r.ID.DrvPath.IsZero() {
		good += ks.Count(r.PathFingerprint(), r.Sigs)
	}
	return good
}
