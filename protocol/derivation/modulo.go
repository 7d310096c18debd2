package derivation

import (
	"context"
	"fmt"
	"sync"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// Modulo is a derivation's hash modulo its fixed-output inputs: what its
// output paths, and the realisations of releases before 2.35, are made from.
type Modulo struct {
	// Outputs has the hash of each output. All are equal but those of
	// fixed-output derivations.
	Outputs map[string]nixhash.Hash
	// Deferred is true when the hash depends on paths that are not known
	// before a build, so that no output path follows from it.
	Deferred bool
}

// Memo remembers the hashes modulo of derivations in the store. Their paths
// follow from their content, so what is remembered never grows stale. Safe for
// concurrent use.
type Memo struct {
	limit int
	mu    sync.Mutex
	known map[storepath.Path]Modulo
}

// NewMemo makes a Memo that forgets everything when it holds limit hashes.
func NewMemo(limit int) *Memo {
	return &Memo{limit: limit, known: make(map[storepath.Path]Modulo)}
}

func (m *Memo) get(p storepath.Path) (Modulo, bool) {
	if m == nil {
		return Modulo{}, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	hash, ok := m.known[p]
	return hash, ok
}

func (m *Memo) put(p storepath.Path, hash Modulo) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) >= m.limit {
		clear(m.known)
	}
	m.known[p] = hash
}

// Hasher computes hashes modulo.
type Hasher struct {
	Dir storepath.Dir
	// Load reads an input derivation; nil if there are none.
	Load func(ctx context.Context, p storepath.Path) (*Derivation, error)
	// Memo may be nil: then every input is read each time.
	Memo *Memo
}

// Modulo computes a derivation's hash modulo. maskOutputs leaves its own
// output paths out: so it is for computing those; inputs are hashed with
// theirs.
func (h *Hasher) Modulo(ctx context.Context, d *Derivation, maskOutputs bool) (Modulo, error) {
	w := &moduloWalk{Hasher: h, known: make(map[storepath.Path]Modulo), active: make(map[storepath.Path]bool)}
	if err := w.hashInputs(ctx, d); err != nil {
		return Modulo{}, err
	}
	return w.modulo(d, maskOutputs)
}

// StaticOutputHashes gives the hashes by which releases before 2.35 key the
// realisations of a derivation's outputs.
func (h *Hasher) StaticOutputHashes(ctx context.Context, d *Derivation) (map[string]nixhash.Hash, error) {
	m, err := h.Modulo(ctx, d, true)
	return m.Outputs, err
}

// moduloWalk is one computation. It goes through the inputs without recursion,
// since clients decide how long a chain of derivations is, and keeps all that it
// has met: a Memo that forgets in the middle would have it begin again and again.
type moduloWalk struct {
	*Hasher
	known  map[storepath.Path]Modulo
	active map[storepath.Path]bool // being hashed: only a store that was tampered with has cycles
	stack  []moduloStep
}

// moduloStep is a derivation whose inputs are being hashed.
type moduloStep struct {
	path   storepath.Path // zero for the one that was asked for
	drv    *Derivation
	inputs []storepath.Path // still to be looked at
}

// hashInputs makes the hashes of all inputs known.
func (w *moduloWalk) hashInputs(ctx context.Context, d *Derivation) error {
	if err := w.push(storepath.Path{}, d); err != nil {
		return err
	}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		top := &w.stack[len(w.stack)-1]
		if last := len(top.inputs) - 1; last >= 0 {
			p := top.inputs[last]
			top.inputs = top.inputs[:last]
			if err := w.enter(ctx, p); err != nil {
				return err
			}
			continue
		}
		if len(w.stack) == 1 {
			return nil
		}
		if err := w.leave(); err != nil {
			return err
		}
	}
}

// push begins a derivation. A fixed-output one needs no inputs.
func (w *moduloWalk) push(p storepath.Path, d *Derivation) error {
	t, err := d.Type()
	if err != nil {
		return err
	}
	step := moduloStep{path: p, drv: d}
	if !t.IsFixed {
		step.inputs = make([]storepath.Path, 0, len(d.InputDrvs))
		for input := range d.InputDrvs {
			step.inputs = append(step.inputs, input)
		}
	}
	w.stack = append(w.stack, step)
	return nil
}

// enter begins a derivation in the store, unless its hash is known.
func (w *moduloWalk) enter(ctx context.Context, p storepath.Path) error {
	if _, ok := w.known[p]; ok {
		return nil
	}
	if hash, ok := w.Memo.get(p); ok {
		w.known[p] = hash
		return nil
	}
	if w.active[p] {
		return fmt.Errorf("cycle detected in the inputs of derivation '%s'", w.Dir.Print(p))
	}
	if w.Load == nil {
		return fmt.Errorf("read derivation '%s': no store to read it from", w.Dir.Print(p))
	}
	d, err := w.Load(ctx, p)
	if err != nil {
		return err
	}
	w.active[p] = true
	return w.push(p, d)
}

// leave ends the derivation on top, whose inputs are known.
func (w *moduloWalk) leave() error {
	top := w.stack[len(w.stack)-1]
	w.stack[len(w.stack)-1] = moduloStep{}
	w.stack = w.stack[:len(w.stack)-1]
	hash, err := w.modulo(top.drv, false)
	if err != nil {
		return err
	}
	delete(w.active, top.path)
	w.known[top.path] = hash
	w.Memo.put(top.path, hash)
	return nil
}

// modulo hashes a derivation whose inputs are known.
func (w *moduloWalk) modulo(d *Derivation, mask bool) (Modulo, error) {
	t, err := d.Type()
	if err != nil {
		return Modulo{}, err
	}
	if t.IsFixed {
		return w.fixed(d)
	}
	result := Modulo{Deferred: !t.IsDeferred && !t.HasKnownOutputPaths}
	inputs := make(map[string]*InputOutputs, len(d.InputDrvs))
	for p, in := range d.InputDrvs {
		input := w.known[p]
		result.Deferred = result.Deferred || input.Deferred
		if err := addInput(inputs, input, in, d.Name); err != nil {
			return Modulo{}, err
		}
	}
	text, err := d.Unparse(w.Dir, mask, inputs)
	if err != nil {
		return Modulo{}, err
	}
	hash := nixhash.Of(nixhash.SHA256, text)
	result.Outputs = make(map[string]nixhash.Hash, len(d.Outputs))
	for name := range d.Outputs {
		result.Outputs[name] = hash
	}
	return result, nil
}

// fixed gives hashes that depend on nothing but the content and the path, so
// that how a fixed output is fetched does not matter to what is built from it.
func (h *Hasher) fixed(d *Derivation) (Modulo, error) {
	result := Modulo{Outputs: make(map[string]nixhash.Hash, 1)}
	for name, o := range d.Outputs {
		path, algo, digest, err := o.Texts(h.Dir, d.Name, name)
		if err != nil {
			return Modulo{}, err
		}
		result.Outputs[name] = nixhash.Of(nixhash.SHA256, "fixed:out:"+algo+":"+digest+":"+path)
	}
	return result, nil
}

// addInput puts an input under its outputs' hashes. Inputs that differ only in
// how their fixed outputs are fetched share a hash and are merged.
func addInput(inputs map[string]*InputOutputs, input Modulo, in *InputOutputs, drvName string) error {
	for _, name := range in.Outputs {
		hash, ok := input.Outputs[name]
		if !ok {
			return fmt.Errorf("no hash for output '%s' of derivation '%s'", name, drvName)
		}
		key := hash.Base16()
		merged := inputs[key]
		if merged == nil {
			merged = &InputOutputs{}
			inputs[key] = merged
		}
		merged.Outputs = sortedSet(append(merged.Outputs, name))
	}
	return nil
}
