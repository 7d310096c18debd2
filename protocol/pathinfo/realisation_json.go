package pathinfo

import (
	"fmt"

	"nixdaemon/protocol/internal/njson"
	"nixdaemon/protocol/storepath"
)

// HashFingerprint is what releases before 2.35 sign: the JSON of HashJSON
// without signatures.
func (r *Realisation) HashFingerprint() string {
	return njson.OfObject(r.hashMembers()).String()
}

// HashJSON is the JSON of releases before 2.35, as it stands on the wire and in
// a binary cache's "realisations/": dependentRealisations, id, outPath and
// signatures.
func (r *Realisation) HashJSON() string {
	sigs := njson.OfStrings(SignatureStrings(r.Sigs))
	return njson.OfObject(append(r.hashMembers(), njson.Member{Name: "signatures", Value: sigs})).String()
}

func (r *Realisation) hashMembers() []njson.Member {
	dependent := make([]njson.Member, 0, len(r.Dependent))
	for id, p := range r.Dependent {
		dependent = append(dependent, njson.Member{Name: id, Value: njson.Of(p.Base())})
	}
	return []njson.Member{
		{Name: "dependentRealisations", Value: njson.OfObject(dependent)},
		{Name: "id", Value: njson.Of(r.ID.HashID())},
		{Name: "outPath", Value: njson.Of(r.OutPath.Base())},
	}
}

// DummyJSON is what release 2.35 and later send in a build result to peers
// that know only the older ids: the dummy id and the path.
func (r *Realisation) DummyJSON() string {
	return njson.OfObject([]njson.Member{
		{Name: "id", Value: njson.Of(DummyID(r.ID.Output))},
		{Name: "outPath", Value: njson.Of(r.OutPath.Base())},
	}).String()
}

// PathFingerprint is what release 2.35 and later sign: the JSON of PathJSON
// without signatures.
func (r *Realisation) PathFingerprint() string {
	return r.keyed(njson.OfObject([]njson.Member{r.outPath()}))
}

// PathJSON is the JSON of release 2.35 and later: a key of drvPath and
// outputName, and the value of ValueJSON.
func (r *Realisation) PathJSON() string { return r.keyed(r.value()) }

// ValueJSON is outPath and signatures, as a binary cache's "build-trace-v2/"
// has it.
func (r *Realisation) ValueJSON() string { return r.value().String() }

func (r *Realisation) keyed(value njson.Value) string {
	key := njson.OfObject([]njson.Member{
		{Name: "drvPath", Value: njson.Of(r.ID.DrvPath.Base())},
		{Name: "outputName", Value: njson.Of(r.ID.Output)},
	})
	return njson.OfObject([]njson.Member{{Name: "key", Value: key}, {Name: "value", Value: value}}).String()
}

func (r *Realisation) outPath() njson.Member {
	return njson.Member{Name: "outPath", Value: njson.Of(r.OutPath.Base())}
}

func (r *Realisation) value() njson.Value {
	sigs := make([]njson.Value, len(r.Sigs))
	for i, sig := range r.Sigs {
		name := sig.KeyName()
		sigs[i] = njson.OfObject([]njson.Member{
			{Name: "keyName", Value: njson.Of(name)},
			{Name: "sig", Value: njson.Of(string(sig[len(name)+1:]))},
		})
	}
	return njson.OfObject([]njson.Member{r.outPath(), {Name: "signatures", Value: njson.OfArray(sigs)}})
}

// ParseRealisation reads the JSON of either generation. Signatures may be
// texts or objects of keyName and sig, or absent.
func ParseRealisation(text string) (*Realisation, error) {
	v, err := njson.Parse(text)
	if err != nil {
		return nil, err
	}
	if v.Kind() != njson.Object {
		return nil, wrongType(v, njson.Object)
	}
	if _, byPath := v.Get("key"); byPath {
		return parseByPath(v)
	}
	return parseByHash(v)
}

// ParseRealisationValue reads the JSON of ValueJSON; the id comes from where
// the value was found.
func ParseRealisationValue(id DrvOutput, text string) (*Realisation, error) {
	v, err := njson.Parse(text)
	if err != nil {
		return nil, err
	}
	return (&Realisation{ID: id}).withValue(v)
}

func parseByHash(v njson.Value) (*Realisation, error) {
	id, err := text(v, "id")
	if err != nil {
		return nil, err
	}
	r := &Realisation{}
	if err := r.parseValue(v); err != nil {
		return nil, err
	}
	if r.ID, err = ParseDrvOutput(id); err != nil {
		return nil, err
	}
	dependent, _ := v.Get("dependentRealisations")
	for _, m := range dependent.Members() {
		p, err := storepath.ParseBase(m.Value.Str())
		if err != nil {
			return nil, err
		}
		if r.Dependent == nil {
			r.Dependent = make(map[string]storepath.Path)
		}
		r.Dependent[m.Name] = p
	}
	return r, nil
}

func parseByPath(v njson.Value) (*Realisation, error) {
	key, _ := v.Get("key")
	value, err := member(v, "value")
	if err != nil {
		return nil, err
	}
	r := &Realisation{}
	drvPath, err := text(key, "drvPath")
	if err != nil {
		return nil, err
	}
	if r.ID.Output, err = text(key, "outputName"); err != nil {
		return nil, err
	}
	if r.ID.DrvPath, err = storepath.ParseBase(drvPath); err != nil {
		return nil, err
	}
	return r.withValue(value)
}

func (r *Realisation) withValue(v njson.Value) (*Realisation, error) {
	if err := r.parseValue(v); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Realisation) parseValue(v njson.Value) error {
	outPath, err := text(v, "outPath")
	if err != nil {
		return err
	}
	if r.OutPath, err = storepath.ParseBase(outPath); err != nil {
		return err
	}
	sigs, ok := v.Get("signatures")
	if !ok {
		return nil
	}
	if sigs.Kind() != njson.Array {
		return wrongType(sigs, njson.Array)
	}
	for _, item := range sigs.Items() {
		sig, err := parseSignatureValue(item)
		if err != nil {
			return err
		}
		r.Sigs = append(r.Sigs, sig)
	}
	r.Sigs = SortSignatures(r.Sigs)
	return nil
}

func parseSignatureValue(v njson.Value) (Signature, error) {
	switch v.Kind() {
	case njson.String:
		return ParseSignature(v.Str())
	case njson.Object:
		name, err := text(v, "keyName")
		if err != nil {
			return "", err
		}
		sig, err := text(v, "sig")
		if err != nil {
			return "", err
		}
		return ParseSignature(name + ":" + sig)
	}
	return "", wrongType(v, njson.String)
}

func member(v njson.Value, name string) (njson.Value, error) {
	if v.Kind() != njson.Object {
		return njson.Value{}, wrongType(v, njson.Object)
	}
	m, ok := v.Get(name)
	if !ok {
		return njson.Value{}, fmt.Errorf("Expected JSON object to contain key '%s' but it doesn't: %s", name, v)
	}
	return m, nil
}

func text(v njson.Value, name string) (string, error) {
	m, err := member(v, name)
	if err == nil && m.Kind() != njson.String {
		err = wrongType(m, njson.String)
	}
	return m.Str(), err
}

func wrongType(v njson.Value, want njson.Kind) error {
	return njson.TypeError(v, want)
}
