package derivation

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"nixdaemon/protocol/internal/njson"
	"nixdaemon/protocol/storepath"
)

// attributes gives a derivation's attributes by name, wherever they come from.
type attributes interface {
	text(name string) (string, error)
	truth(name string, byDefault bool) (bool, error)
	// set gives nil for an attribute that is absent.
	set(name string) ([]string, error)
}

func (d *BasicDerivation) options(dir storepath.Dir, placeholders map[string]SingleDerivedPath) (*Options, []string, error) {
	p := &optionsParser{dir: dir, placeholders: placeholders}
	o := &Options{}
	var from attributes = envAttributes(d.Env)
	read := p.env
	if d.StructuredAttrs != nil {
		attrs, err := attrsValue(*d.StructuredAttrs)
		if err != nil {
			return nil, nil, err
		}
		from = jsonAttributes{attrs}
		read = func(o *Options, env map[string]string) error { return p.structured(o, env, attrs) }
	}
	err := read(o, d.Env)
	if err == nil {
		err = p.common(o, from)
	}
	return o, p.warnings, err
}

type optionsParser struct {
	dir          storepath.Dir
	placeholders map[string]SingleDerivedPath
	warnings     []string
}

// common reads what both kinds of attributes have.
func (p *optionsParser) common(o *Options, from attributes) error {
	var err error
	o.SandboxProfile, err = from.text("__sandboxProfile")
	for _, flag := range []struct {
		into      *bool
		name      string
		byDefault bool
	}{
		{&o.NoChroot, "__noChroot", false},
		{&o.AllowLocalNetworking, "__darwinAllowLocalNetworking", false},
		{&o.PreferLocalBuild, "preferLocalBuild", false},
		{&o.AllowSubstitutes, "allowSubstitutes", true},
	} {
		if err == nil {
			*flag.into, err = from.truth(flag.name, flag.byDefault)
		}
	}
	for _, set := range []struct {
		into *[]string
		name string
	}{
		{&o.ImpureHostDeps, "__impureHostDeps"},
		{&o.ImpureEnvVars, "impureEnvVars"},
		{&o.RequiredSystemFeatures, "requiredSystemFeatures"},
	} {
		if err == nil {
			*set.into, err = from.set(set.name)
		}
	}
	return err
}

// envAttributes are attributes as environment variables.
type envAttributes map[string]string

func (e envAttributes) text(name string) (string, error) { return e[name], nil }

func (e envAttributes) truth(name string, byDefault bool) (bool, error) {
	value, ok := e[name]
	if !ok {
		return byDefault, nil
	}
	return value == "1", nil
}

func (e envAttributes) set(name string) ([]string, error) {
	value, ok := e[name]
	if !ok {
		return nil, nil
	}
	return sortedSet(tokens(value)), nil
}

// tokens splits at white space; never nil.
func tokens(s string) []string {
	return append([]string{}, strings.FieldsFunc(s, func(r rune) bool {
		return r == ' ' || r == '\t' || r == '\n' || r == '\r'
	})...)
}

// jsonAttributes are structured attributes.
type jsonAttributes struct{ value njson.Value }

func (j jsonAttributes) text(name string) (string, error) {
	v, ok := j.value.Get(name)
	if !ok {
		return "", nil
	}
	return v.Str(), whileParsing(name, ofKind(v, njson.String))
}

func (j jsonAttributes) truth(name string, byDefault bool) (bool, error) {
	v, ok := j.value.Get(name)
	if !ok {
		return byDefault, nil
	}
	return v.IsTrue(), whileParsing(name, ofKind(v, njson.Bool))
}

func (j jsonAttributes) set(name string) ([]string, error) {
	v, ok := j.value.Get(name)
	if !ok {
		return nil, nil
	}
	texts, err := textList(v)
	return sortedSet(texts), whileParsing(name, err)
}

func whileParsing(name string, err error) error {
	if err == nil {
		return nil
	}
	return &TraceError{fmt.Sprintf(`while parsing attribute "%s"`, name), err}
}

func ofKind(v njson.Value, want njson.Kind) error {
	if v.Kind() != want {
		return njson.TypeError(v, want)
	}
	return nil
}

// textList reads an array of strings; never nil.
func textList(v njson.Value) ([]string, error) {
	if err := ofKind(v, njson.Array); err != nil {
		return nil, err
	}
	texts := make([]string, 0, len(v.Items()))
	for _, item := range v.Items() {
		if err := ofKind(item, njson.String); err != nil {
			return nil, err
		}
		texts = append(texts, item.Str())
	}
	return texts, nil
}

// env reads what only unstructured attributes have.
func (p *optionsParser) env(o *Options, env map[string]string) error {
	from := envAttributes(env)
	checks := &OutputChecks{IgnoreSelfRefs: true}
	for _, refs := range checks.refLists() {
		texts, err := from.set(refs.name)
		if err != nil {
			return err
		}
		*refs.into = p.refs(texts)
	}
	o.AllOutputs = checks
	var err error
	if o.PassAsFile, err = from.set("passAsFile"); err != nil {
		return err
	}
	o.ExportReferencesGraph, err = p.envGraphs(env["exportReferencesGraph"])
	return err
}

// refList is one of the lists of references in an output's checks.
type refList struct {
	into *[]Ref
	name string
}

func (c *OutputChecks) refLists() []refList {
	return []refList{
		{&c.AllowedReferences, "allowedReferences"},
		{&c.DisallowedReferences, "disallowedReferences"},
		{&c.AllowedRequisites, "allowedRequisites"},
		{&c.DisallowedRequisites, "disallowedRequisites"},
	}
}

func (p *optionsParser) envGraphs(text string) (map[string][]SingleDerivedPath, error) {
	words := tokens(text)
	if len(words)%2 != 0 {
		return nil, fmt.Errorf("odd number of tokens in 'exportReferencesGraph': '%s'", text)
	}
	graphs := make(map[string][]SingleDerivedPath, len(words)/2)
	for ; len(words) > 0; words = words[2:] {
		if !isGraphFile(words[0]) {
			return nil, fmt.Errorf("invalid file name '%s' in 'exportReferencesGraph'", words[0])
		}
		path, err := p.path(words[1])
		if err != nil {
			return nil, err
		}
		graphs[words[0]] = []SingleDerivedPath{path}
	}
	return graphs, nil
}

// isGraphFile matches [A-Za-z_][A-Za-z0-9_.-]*.
func isGraphFile(name string) bool {
	return name != "" && name[0] != '.' && name[0] != '-' &&
		isShellName(strings.NewReplacer(".", "_", "-", "_").Replace(name))
}

// refs gives nil for nil.
func (p *optionsParser) refs(texts []string) []Ref {
	if texts == nil {
		return nil
	}
	refs := make([]Ref, 0, len(texts))
	for _, text := range texts {
		refs = append(refs, p.ref(text))
	}
	slices.SortFunc(refs, Ref.Compare)
	return slices.CompactFunc(refs, func(a, b Ref) bool { return a.Compare(b) == 0 })
}

// ref reads a placeholder, a store path, or else the name of an output.
func (p *optionsParser) ref(text string) Ref {
	if path, ok := p.placeholders[text]; ok {
		return Ref{Path: path}
	}
	if path, err := p.dir.Parse(text); err == nil {
		return Ref{Path: SingleDerivedPath{Path: path}}
	}
	return Ref{Output: text}
}

// path reads a placeholder or store path, or what lies beneath either.
func (p *optionsParser) path(text string) (SingleDerivedPath, error) {
	root := text
	if i := strings.IndexByte(strings.TrimPrefix(text, "/"), '/'); i >= 0 {
		root = text[:i+1]
	}
	if path, ok := p.placeholders[root]; ok {
		return path, nil
	}
	path, _, err := p.dir.ParseInside(text)
	return SingleDerivedPath{Path: path}, err
}

// structured reads what only structured attributes have.
func (p *optionsParser) structured(o *Options, env map[string]string, attrs njson.Value) error {
	p.warnIgnored(env, attrs)
	var err error
	if o.PerOutput, err = p.outputChecks(attrs); err != nil {
		return err
	}
	if o.UnsafeDiscardReferences, err = discards(attrs); err != nil {
		return &TraceError{"while parsing attribute 'unsafeDiscardReferences'", err}
	}
	o.ExportReferencesGraph, err = p.jsonGraphs(attrs)
	return err
}

func (p *optionsParser) warnIgnored(env map[string]string, attrs njson.Value) {
	const format = "'structuredAttrs' disables the effect of the top-level attribute '%s'; %s"
	for _, name := range []string{
		"allowedReferences", "allowedRequisites", "disallowedRequisites", "disallowedReferences", "maxSize", "maxClosureSize",
	} {
		if _, used := attrs.Get(name); used {
			p.warnings = append(p.warnings, fmt.Sprintf(format, name, "use 'outputChecks' instead"))
		}
	}
	if _, used := env["passAsFile"]; used {
		p.warnings = append(p.warnings, fmt.Sprintf(format, "passAsFile", "because all JSON is always passed via file"))
	}
}

func (p *optionsParser) outputChecks(attrs njson.Value) (map[string]OutputChecks, error) {
	all := make(map[string]OutputChecks)
	v, ok := attrs.Get("outputChecks")
	if !ok {
		return all, nil
	}
	if err := ofKind(v, njson.Object); err != nil {
		return nil, err
	}
	for _, m := range v.Members() {
		checks, err := p.checks(m.Name, m.Value)
		if err != nil {
			return nil, err
		}
		all[m.Name] = checks
	}
	return all, nil
}

func (p *optionsParser) checks(output string, v njson.Value) (OutputChecks, error) {
	var checks OutputChecks
	err := ofKind(v, njson.Object)
	for _, limit := range []struct {
		into **uint64
		name string
	}{
		{&checks.MaxSize, "maxSize"},
		{&checks.MaxClosureSize, "maxClosureSize"},
	} {
		if err == nil {
			*limit.into, err = sizeLimit(v, limit.name)
		}
	}
	for _, refs := range checks.refLists() {
		list, present := v.Get(refs.name)
		if err != nil || !present {
			continue
		}
		texts, bad := textList(list)
		if bad != nil {
			err = &TraceError{fmt.Sprintf("while parsing attribute 'outputChecks.\"%s\".%s'", output, refs.name), bad}
		}
		*refs.into = p.refs(texts)
	}
	return checks, err
}

func sizeLimit(v njson.Value, name string) (*uint64, error) {
	limit, ok := v.Get(name)
	if !ok {
		return nil, nil
	}
	n, ok := limit.AsUint64()
	if !ok {
		return nil, fmt.Errorf("[json.exception.type_error.302] type must be number, but is %s", limit.TypeName())
	}
	return &n, nil
}

func discards(attrs njson.Value) (map[string]bool, error) {
	all := make(map[string]bool)
	v, ok := attrs.Get("unsafeDiscardReferences")
	if !ok {
		return all, nil
	}
	if err := ofKind(v, njson.Object); err != nil {
		return nil, err
	}
	for _, m := range v.Members() {
		if err := ofKind(m.Value, njson.Bool); err != nil {
			return nil, err
		}
		all[m.Name] = m.Value.IsTrue()
	}
	return all, nil
}

func (p *optionsParser) jsonGraphs(attrs njson.Value) (map[string][]SingleDerivedPath, error) {
	graphs := make(map[string][]SingleDerivedPath)
	v, ok := attrs.Get("exportReferencesGraph")
	if ok && v.Kind() != njson.Object {
		p.warnings = append(p.warnings, "'exportReferencesGraph' in structured attrs is not a JSON object, ignoring")
	}
	for _, m := range v.Members() {
		texts, err := flatten(nil, m.Value)
		if err != nil {
			return nil, err
		}
		paths := make([]SingleDerivedPath, 0, len(texts))
		for _, text := range sortedSet(texts) {
			path, err := p.path(text)
			if err != nil {
				return nil, err
			}
			paths = append(paths, path)
		}
		slices.SortFunc(paths, SingleDerivedPath.Compare)
		graphs[m.Name] = slices.CompactFunc(paths, func(a, b SingleDerivedPath) bool { return a.Compare(b) == 0 })
	}
	return graphs, nil
}

// flatten appends the strings of nested arrays to texts.
func flatten(texts []string, v njson.Value) ([]string, error) {
	switch v.Kind() {
	case njson.String:
		return append(texts, v.Str()), nil
	case njson.Array:
		var err error
		for _, item := range v.Items() {
			if texts, err = flatten(texts, item); err != nil {
				return nil, err
			}
		}
		return texts, nil
	}
	return nil, errors.New("'exportReferencesGraph' value is not an array or a string")
}
