package derivation

import (
	"fmt"
	"strings"

	"nixdaemon/protocol/internal/njson"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// parseAttrs reads structured attributes and gives them as upstream would
// write them again, which is what gets hashed.
func parseAttrs(text string) (*string, error) {
	if strings.HasPrefix(text, "{") && njson.IsCanonical(text) {
		return &text, nil
	}
	v, err := attrsValue(text)
	if err != nil {
		return nil, err
	}
	out := v.String()
	return &out, nil
}

func attrsValue(text string) (njson.Value, error) {
	v, err := njson.Parse(text)
	if err == nil && v.Kind() != njson.Object {
		err = fmt.Errorf("[json.exception.type_error.302] type must be object, but is %s", v.TypeName())
	}
	if err != nil {
		return njson.Value{}, fmt.Errorf("cannot process %s attribute: %w", structuredAttrsVar, err)
	}
	return v, nil
}

// ExportedPath is one path of a reference graph that a builder asked for.
type ExportedPath struct {
	Info *pathinfo.Info
	// ClosureSize is the sum of the NAR sizes of the path's closure.
	ClosureSize uint64
}

// AttrsFiles gives the contents of .attrs.json and .attrs.sh: the structured
// attributes with the outputs' placeholders and, by attribute, the graphs of
// exportReferencesGraph, each sorted by path. Placeholders are still to be
// rewritten in both (libstore/parsed-derivations.cc, prepareStructuredAttrs).
func (d *BasicDerivation) AttrsFiles(dir storepath.Dir, graphs map[string][]ExportedPath) (jsonText, shell string, err error) {
	if d.StructuredAttrs == nil {
		return "", "", fmt.Errorf("derivation '%s' has no structured attributes", d.Name)
	}
	attrs, err := attrsValue(*d.StructuredAttrs)
	if err != nil {
		return "", "", err
	}
	outputs := make([]njson.Member, 0, len(d.Outputs))
	for name := range d.Outputs {
		outputs = append(outputs, njson.Member{Name: name, Value: njson.Of(HashPlaceholder(name))})
	}
	members := append([]njson.Member(nil), attrs.Members()...)
	members = append(members, njson.Member{Name: "outputs", Value: njson.OfObject(outputs)})
	for name, graph := range graphs {
		members = append(members, njson.Member{Name: name, Value: graphValue(dir, graph)})
	}
	attrs = njson.OfObject(members)
	return attrs.String(), shellDeclarations(attrs), nil
}

// graphValue is a format that builders rely on; it does not follow changes of
// the JSON of path infos elsewhere.
func graphValue(dir storepath.Dir, graph []ExportedPath) njson.Value {
	items := make([]njson.Value, len(graph))
	for i, p := range graph {
		members := []njson.Member{
			{Name: "closureSize", Value: njson.OfUint(p.ClosureSize)},
			{Name: "narHash", Value: njson.Of(p.Info.NarHash.String())},
			{Name: "narSize", Value: njson.OfUint(p.Info.NarSize)},
			{Name: "path", Value: njson.Of(dir.Print(p.Info.Path))},
			{Name: "references", Value: njson.OfStrings(dir.PrintAll(p.Info.References))},
			{Name: "valid", Value: njson.OfBool(true)},
		}
		if !p.Info.CA.IsZero() {
			members = append(members, njson.Member{Name: "ca", Value: njson.Of(p.Info.CA.String())})
		}
		items[i] = njson.OfObject(members)
	}
	return njson.OfArray(items)
}

// shellDeclarations writes what bash can hold of an object: scalars, and flat
// arrays and objects of them, under names that are variables' names.
func shellDeclarations(attrs njson.Value) string {
	var b strings.Builder
	for _, m := range attrs.Members() {
		if !isShellName(m.Name) {
			continue
		}
		if s, ok := shellScalar(m.Value); ok {
			fmt.Fprintf(&b, "declare %s=%s\n", m.Name, s)
			continue
		}
		switch m.Value.Kind() {
		case njson.Array:
			if s, ok := shellArray(m.Value.Items()); ok {
				fmt.Fprintf(&b, "declare -a %s=(%s)\n", m.Name, s)
			}
		case njson.Object:
			if s, ok := shellObject(m.Value.Members()); ok {
				fmt.Fprintf(&b, "declare -A %s=(%s)\n", m.Name, s)
			}
		}
	}
	return b.String()
}

func shellArray(items []njson.Value) (string, bool) {
	var b strings.Builder
	for _, item := range items {
		s, ok := shellScalar(item)
		if !ok {
			return "", false
		}
		b.WriteString(s)
		b.WriteByte(' ')
	}
	return b.String(), true
}

func shellObject(members []njson.Member) (string, bool) {
	var b strings.Builder
	for _, m := range members {
		s, ok := shellScalar(m.Value)
		if !ok {
			return "", false
		}
		fmt.Fprintf(&b, "[%s]=%s ", shellQuote(m.Name), s)
	}
	return b.String(), true
}

func shellScalar(v njson.Value) (string, bool) {
	switch v.Kind() {
	case njson.String:
		return shellQuote(v.Str()), true
	case njson.Null:
		return "''", true
	case njson.Bool:
		if v.IsTrue() {
			return "1", true
		}
		return "", true
	}
	n, ok := v.AsInt32()
	return fmt.Sprint(n), ok
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func isShellName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// PassAsFileName is the name of the file in the build directory that holds a
// variable of passAsFile.
func PassAsFileName(variable string) string {
	return ".attr-" + nixhash.Of(nixhash.SHA256, variable).Nix32()
}
