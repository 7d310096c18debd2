package derivation

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// ATerm is the derivation's text, as it stands in its .drv file.
func (d *Derivation) ATerm(dir storepath.Dir) (string, error) {
	return d.Unparse(dir, false, nil)
}

// Unparse is the derivation's text. maskOutputs leaves the outputs' paths, and
// the variables of their names, empty. actualInputs, if not nil, stands for
// the input derivations, by the hash that replaces each path.
func (d *Derivation) Unparse(dir storepath.Dir, maskOutputs bool, actualInputs map[string]*InputOutputs) (string, error) {
	w := &writer{out: make([]byte, 0, d.sizeHint(dir)), dir: dir, mask: maskOutputs}
	if d.hasDynamicInputs() {
		w.add(`DrvWithVersion("` + dynamicVersion + `",`)
	} else {
		w.add("Derive(")
	}
	if err := w.outputs(d); err != nil {
		return "", err
	}
	w.add(",")
	if actualInputs != nil {
		w.hashedInputs(actualInputs)
	} else {
		w.inputDrvs(d.InputDrvs)
	}
	w.add(",")
	w.list(len(d.InputSrcs), func(i int) { w.storePath(d.InputSrcs[i]) })
	w.add(",")
	w.plain(d.Platform)
	w.add(",")
	w.quoted(d.Builder)
	w.add(",")
	w.list(len(d.Args), func(i int) { w.quoted(d.Args[i]) })
	w.add(",")
	if err := w.env(&d.BasicDerivation); err != nil {
		return "", err
	}
	w.add(")")
	return string(w.out), nil
}

// sizeHint is about the length of the text.
func (d *Derivation) sizeHint(dir storepath.Dir) int {
	n := 512 + (len(d.Outputs)+len(d.InputDrvs)+len(d.InputSrcs))*(len(dir)+100)
	for name, value := range d.Env {
		n += len(name) + len(value) + 8
	}
	if d.StructuredAttrs != nil {
		n += len(*d.StructuredAttrs) * 5 / 4
	}
	return n
}

func (d *Derivation) hasDynamicInputs() bool {
	for _, in := range d.InputDrvs {
		if len(in.Dynamic) > 0 {
			return true
		}
	}
	return false
}

type writer struct {
	out  []byte
	dir  storepath.Dir
	mask bool
}

func (w *writer) add(s string) { w.out = append(w.out, s...) }

// plain writes a string that needs no escapes.
func (w *writer) plain(s string) {
	w.out = append(w.out, '"')
	w.out = append(w.out, s...)
	w.out = append(w.out, '"')
}

func (w *writer) quoted(s string) {
	w.out = append(w.out, '"')
	from := 0
	for i := range len(s) {
		if c := s[i]; c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t' {
			w.out = append(w.out, s[from:i]...)
			w.out = append(w.out, '\\', escape(c))
			from = i + 1
		}
	}
	w.out = append(w.out, s[from:]...)
	w.out = append(w.out, '"')
}

func escape(c byte) byte {
	switch c {
	case '\n':
		return 'n'
	case '\r':
		return 'r'
	case '\t':
		return 't'
	}
	return c
}

func (w *writer) storePath(p storepath.Path) {
	w.out = append(w.out, '"')
	w.out = append(w.out, w.dir...)
	w.out = append(w.out, '/')
	w.out = append(w.out, p.Base()...)
	w.out = append(w.out, '"')
}

func (w *writer) list(n int, item func(i int)) {
	w.out = append(w.out, '[')
	for i := range n {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		item(i)
	}
	w.out = append(w.out, ']')
}

func (w *writer) outputs(d *Derivation) error {
	names := d.OutputNames()
	var failed error
	w.list(len(names), func(i int) {
		path, algo, hash, err := d.Outputs[names[i]].Texts(w.dir, d.Name, names[i])
		if failed == nil {
			failed = err
		}
		if w.mask {
			path = ""
		}
		w.add("(")
		w.plain(names[i])
		for _, field := range []string{path, algo, hash} {
			w.add(",")
			w.plain(field)
		}
		w.add(")")
	})
	return failed
}

func (w *writer) inputDrvs(inputs map[storepath.Path]*InputOutputs) {
	paths := slices.SortedFunc(maps.Keys(inputs), storepath.Compare)
	w.list(len(paths), func(i int) {
		w.add("(")
		w.storePath(paths[i])
		w.inputOutputs(inputs[paths[i]])
		w.add(")")
	})
}

func (w *writer) hashedInputs(inputs map[string]*InputOutputs) {
	w.nodes(slices.Sorted(maps.Keys(inputs)), inputs)
}

func (w *writer) nodes(names []string, nodes map[string]*InputOutputs) {
	w.list(len(names), func(i int) {
		w.add("(")
		w.plain(names[i])
		w.inputOutputs(nodes[names[i]])
		w.add(")")
	})
}

func (w *writer) inputOutputs(in *InputOutputs) {
	w.add(",")
	if len(in.Dynamic) == 0 {
		w.names(in.Outputs)
		return
	}
	w.add("(")
	w.names(in.Outputs)
	w.add(",")
	w.nodes(slices.Sorted(maps.Keys(in.Dynamic)), in.Dynamic)
	w.add(")")
}

func (w *writer) names(names []string) {
	w.list(len(names), func(i int) { w.plain(names[i]) })
}

func (w *writer) env(d *BasicDerivation) error {
	env, err := d.FullEnv()
	if err != nil {
		return err
	}
	w.list(len(env), func(i int) {
		w.add("(")
		w.quoted(env[i][0])
		w.add(",")
		value := env[i][1]
		if _, isOutput := d.Outputs[env[i][0]]; isOutput && w.mask {
			value = ""
		}
		w.quoted(value)
		w.add(")")
	})
	return nil
}

// FullEnv gives the environment as pairs sorted by name, with the structured
// attributes as the variable "__json": the form of texts and of the wire.
func (d *BasicDerivation) FullEnv() ([][2]string, error) {
	if _, taken := d.Env[structuredAttrsVar]; taken {
		return nil, errors.New("Cannot have an environment variable named '__json'. This key is reserved for encoding structured attrs")
	}
	env := make([][2]string, 0, len(d.Env)+1)
	for name, value := range d.Env {
		env = append(env, [2]string{name, value})
	}
	if d.StructuredAttrs != nil {
		env = append(env, [2]string{structuredAttrsVar, *d.StructuredAttrs})
	}
	slices.SortFunc(env, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return env, nil
}

// SetFullEnv sets the environment from what FullEnv gives. Of variables with
// the same name the last counts.
func (d *BasicDerivation) SetFullEnv(env [][2]string) error {
	d.Env = make(map[string]string, len(env))
	d.StructuredAttrs = nil
	for _, pair := range env {
		if err := d.setEnv(pair[0], pair[1]); err != nil {
			return err
		}
	}
	return nil
}

// Path is where the derivation lies in the store: the address of its text, to
// which its inputs belong as references.
func (d *Derivation) Path(dir storepath.Dir) (storepath.Path, error) {
	text, err := d.ATerm(dir)
	if err != nil {
		return storepath.Path{}, err
	}
	return PathOfText(dir, d.Name, text, d.References())
}

// References are what a .drv file refers to: the input sources and the input
// derivations, a sorted set.
func (d *Derivation) References() []storepath.Path {
	refs := make([]storepath.Path, 0, len(d.InputSrcs)+len(d.InputDrvs))
	refs = append(refs, d.InputSrcs...)
	for p := range d.InputDrvs {
		refs = append(refs, p)
	}
	return storepath.SortUnique(refs)
}

// PathOfText is where a text with those references lies as a derivation of
// that name.
func PathOfText(dir storepath.Dir, name, text string, refs []storepath.Path) (storepath.Path, error) {
	ca := storepath.ContentAddress{Method: storepath.MethodText, Hash: nixhash.Of(nixhash.SHA256, text)}
	return dir.FromContentAddress(name+storepath.DrvExtension, ca, storepath.References{Others: refs})
}
