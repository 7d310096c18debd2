package derivation

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"nixdaemon/protocol/storepath"
)

// dynamicVersion marks the format whose inputs may be outputs of derivations
// that are themselves built.
const dynamicVersion = "xp-dyn-drv"

// structuredAttrsVar is the environment variable that carries structured
// attributes in texts and on the wire.
const structuredAttrsVar = "__json"

// maxDynamicDepth bounds the nesting of dynamic inputs.
const maxDynamicDepth = 1000

// ParseFile reads the content of a .drv file. Errors of its format are told
// with the file's path (libstore/store-api.cc, readDerivationCommon).
func ParseFile(dir storepath.Dir, drvPath storepath.Path, text string, f Features) (*Derivation, error) {
	name, err := NameFromPath(drvPath)
	if err != nil {
		return nil, err
	}
	d, err := parseNonEmpty(dir, text, name, f)
	if format := (*FormatError)(nil); errors.As(err, &format) {
		return nil, fmt.Errorf("error parsing derivation '%s': %w", dir.Print(drvPath), err)
	}
	return d, err
}

func parseNonEmpty(dir storepath.Dir, text, name string, f Features) (*Derivation, error) {
	if text == "" {
		return nil, badFormat("file is empty (possible filesystem corruption)")
	}
	return Parse(dir, text, name, f)
}

// NameFromPath is the derivation's name: that of its path without ".drv".
func NameFromPath(drvPath storepath.Path) (string, error) {
	if err := drvPath.RequireDerivation(); err != nil {
		return "", err
	}
	return strings.TrimSuffix(drvPath.Name(), storepath.DrvExtension), nil
}

// Parse reads the ATerm text of a derivation of that name. Like upstream it
// does not insist on commas within lists, and ignores what follows the end. The
// result shares the text's memory.
func Parse(dir storepath.Dir, text, name string, f Features) (*Derivation, error) {
	p := &parser{rest: text, dir: dir, features: f}
	d := &Derivation{BasicDerivation: BasicDerivation{Name: name}}
	if err := p.version(name); err != nil {
		return nil, err
	}
	for _, part := range []func(*Derivation) error{p.outputs, p.inputDrvs, p.inputSrcs, p.command, p.env} {
		if err := part(d); err != nil {
			return nil, err
		}
	}
	return d, nil
}

type parser struct {
	rest     string
	dir      storepath.Dir
	features Features
	// dynamic is set for the format that knows dynamic inputs.
	dynamic bool
	// names and nodes are cut up among inputs, which are many and small.
	names []string
	nodes []InputOutputs
}

// node makes an input's node.
func (p *parser) node(names []string) *InputOutputs {
	if len(p.nodes) == 0 {
		p.nodes = make([]InputOutputs, 32)
	}
	in := &p.nodes[0]
	p.nodes = p.nodes[1:]
	in.Outputs = names
	return in
}

func (p *parser) version(name string) error {
	if err := p.expect("D"); err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(p.rest, "e"):
		return p.expect("erive(")
	case !strings.HasPrefix(p.rest, "r"):
		return errors.New("derivation does not start with 'Derive' or 'DrvWithVersion'")
	}
	if err := p.expect("rvWithVersion("); err != nil {
		return err
	}
	version, err := p.str()
	if err != nil {
		return err
	}
	if version != dynamicVersion {
		return badFormat("Unknown derivation ATerm format version '%s'", version)
	}
	err = require(p.features.DynamicDerivations, "dynamic-derivations",
		fmt.Sprintf("derivation '%s', ATerm format version '%s'", name, dynamicVersion))
	if err != nil {
		return err
	}
	p.dynamic = true
	return p.expect(",")
}

func (p *parser) expect(s string) error {
	rest, ok := strings.CutPrefix(p.rest, s)
	if !ok {
		return badFormat("expected string '%s'", s)
	}
	p.rest = rest
	return nil
}

// end reads a list's closing bracket or the comma before its next item.
func (p *parser) end() bool {
	if p.rest == "" {
		return false
	}
	switch p.rest[0] {
	case ',':
		p.rest = p.rest[1:]
	case ']':
		p.rest = p.rest[1:]
		return true
	}
	return false
}

// str reads a quoted string.
func (p *parser) str() (string, error) {
	if p.rest == "" || p.rest[0] != '"' {
		return "", badFormat("expected string '\"'")
	}
	body := p.rest[1:]
	for from := 0; ; {
		i := strings.IndexByte(body[from:], '"')
		if i < 0 {
			return "", badFormat("unterminated string in derivation")
		}
		i += from
		if !endsEscaped(body[:i]) {
			p.rest = body[i+1:]
			return unescape(body[:i]), nil
		}
		from = i + 1
	}
}

// endsEscaped tells whether what follows s is escaped by its last backslash.
func endsEscaped(s string) bool {
	n := 0
	for n < len(s) && s[len(s)-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

func unescape(s string) string {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for ; i >= 0; i = strings.IndexByte(s, '\\') {
		out = append(out, s[:i]...)
		out = append(out, escaped(s[i+1]))
		s = s[i+2:]
	}
	return string(append(out, s...))
}

func escaped(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// stringSet reads a list of strings that make up a set.
func (p *parser) stringSet() ([]string, error) {
	if err := p.expect("["); err != nil {
		return nil, err
	}
	if cap(p.names)-len(p.names) < 4 {
		p.names = make([]string, 0, 64)
	}
	set := p.names[len(p.names):]
	for !p.end() {
		s, err := p.str()
		if err != nil {
			return nil, err
		}
		set = append(set, s)
	}
	if len(set) == 0 {
		return nil, nil
	}
	// If the set outgrew what was left, append moved it.
	if len(p.names)+len(set) <= cap(p.names) {
		p.names = p.names[:len(p.names)+len(set)]
	}
	if len(set) > 1 {
		set = sortedSet(set)
	}
	return slices.Clip(set), nil
}

func (p *parser) path() (storepath.Path, error) {
	s, err := p.str()
	if err == nil {
		err = checkAbsolute(s)
	}
	if err != nil {
		return storepath.Path{}, err
	}
	return p.dir.Parse(s)
}

func checkAbsolute(s string) error {
	if s == "" || s[0] != '/' {
		return badFormat("bad path '%s' in derivation", s)
	}
	return nil
}

// fields reads strings with commas between, after an opening parenthesis or a
// comma.
func (p *parser) fields(into ...*string) error {
	for i, field := range into {
		if i > 0 {
			if err := p.expect(","); err != nil {
				return err
			}
		}
		s, err := p.str()
		if err != nil {
			return err
		}
		*field = s
	}
	return nil
}

func (p *parser) outputs(d *Derivation) error {
	if err := p.expect("["); err != nil {
		return err
	}
	d.Outputs = make(map[string]Output, 1)
	for !p.end() {
		if err := p.expect("("); err != nil {
			return err
		}
		var name, path, algo, hash string
		if err := p.fields(&name, &path, &algo, &hash); err != nil {
			return err
		}
		if err := p.expect(")"); err != nil {
			return err
		}
		o, err := ParseOutput(p.dir, d.Name, name, path, algo, hash, p.features)
		if err != nil {
			return err
		}
		// Of outputs with the same name upstream keeps the first.
		if _, taken := d.Outputs[name]; !taken {
			d.Outputs[name] = o
		}
	}
	return nil
}

func (p *parser) inputDrvs(d *Derivation) error {
	if err := p.expect(",["); err != nil {
		return err
	}
	d.InputDrvs = make(map[storepath.Path]*InputOutputs, p.inputCount())
	for !p.end() {
		if err := p.expect("("); err != nil {
			return err
		}
		path, err := p.path()
		if err != nil {
			return err
		}
		if err := p.expect(","); err != nil {
			return err
		}
		if d.InputDrvs[path], err = p.inputOutputs(0); err != nil {
			return err
		}
		if err := p.expect(")"); err != nil {
			return err
		}
	}
	return nil
}

// inputCount guesses how many input derivations follow.
func (p *parser) inputCount() int {
	list, _, _ := strings.Cut(p.rest, ")],[")
	return strings.Count(list, "),(") + 1
}

func (p *parser) inputOutputs(depth int) (*InputOutputs, error) {
	if p.dynamic && strings.HasPrefix(p.rest, "(") {
		return p.dynamicOutputs(depth)
	}
	if p.dynamic && !strings.HasPrefix(p.rest, "[") {
		return nil, badFormat("invalid inputDrvs entry in derivation")
	}
	names, err := p.stringSet()
	if err != nil {
		return nil, err
	}
	return p.node(names), nil
}

func (p *parser) dynamicOutputs(depth int) (*InputOutputs, error) {
	if depth == maxDynamicDepth {
		return nil, badFormat("inputDrvs entry in derivation is nested too deeply")
	}
	if err := p.expect("("); err != nil {
		return nil, err
	}
	names, err := p.stringSet()
	if err != nil {
		return nil, err
	}
	in := p.node(names)
	if err := p.expect(",["); err != nil {
		return nil, err
	}
	for !p.end() {
		if err := p.dynamicOutput(in, depth); err != nil {
			return nil, err
		}
	}
	return in, p.expect(")")
}

func (p *parser) dynamicOutput(in *InputOutputs, depth int) error {
	if err := p.expect("("); err != nil {
		return err
	}
	name, err := p.str()
	if err != nil {
		return err
	}
	if err := p.expect(","); err != nil {
		return err
	}
	child, err := p.inputOutputs(depth + 1)
	if err != nil {
		return err
	}
	if in.Dynamic == nil {
		in.Dynamic = make(map[string]*InputOutputs)
	}
	in.Dynamic[name] = child
	return p.expect(")")
}

func (p *parser) inputSrcs(d *Derivation) error {
	if err := p.expect(",["); err != nil {
		return err
	}
	for !p.end() {
		path, err := p.path()
		if err != nil {
			return err
		}
		d.InputSrcs = append(d.InputSrcs, path)
	}
	d.InputSrcs = storepath.SortUnique(d.InputSrcs)
	return p.expect(",")
}

func (p *parser) command(d *Derivation) error {
	if err := p.fields(&d.Platform, &d.Builder); err != nil {
		return err
	}
	if err := p.expect(",["); err != nil {
		return err
	}
	for !p.end() {
		arg, err := p.str()
		if err != nil {
			return err
		}
		d.Args = append(d.Args, arg)
	}
	return nil
}

func (p *parser) env(d *Derivation) error {
	if err := p.expect(",["); err != nil {
		return err
	}
	d.Env = make(map[string]string, strings.Count(p.rest, `"),("`)+1)
	for !p.end() {
		if err := p.expect("("); err != nil {
			return err
		}
		var name, value string
		if err := p.fields(&name, &value); err != nil {
			return err
		}
		if err := d.setEnv(name, value); err != nil {
			return err
		}
		if err := p.expect(")"); err != nil {
			return err
		}
	}
	return p.expect(")")
}

// setEnv sets a variable, or the structured attributes if it is that which
// carries them.
func (d *BasicDerivation) setEnv(name, value string) error {
	if name != structuredAttrsVar {
		d.Env[name] = value
		return nil
	}
	attrs, err := parseAttrs(value)
	d.StructuredAttrs = attrs
	return err
}
