package protocol

import (
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// BuildDerivationRequest is OpBuildDerivation.
//
//	derivation's path, BasicDerivation, build mode
type BuildDerivationRequest struct {
	DrvPath    storepath.Path
	Derivation *derivation.BasicDerivation
	Mode       derivation.BuildMode
}

// BuildDerivation reads the request. The derivation has the name of its path.
func (r *Reader) BuildDerivation() (req BuildDerivationRequest, err error) {
	if req.DrvPath, req.Derivation, err = r.NamedDerivation(); err != nil {
		return req, err
	}
	req.Mode, err = r.BuildMode()
	return req, err
}

// BuildDerivation writes the request. It fails, before writing anything, for a
// derivation that has no textual form.
func (w *Writer) BuildDerivation(req BuildDerivationRequest) error {
	write, err := w.NamedDerivation(req.DrvPath, req.Derivation)
	if err != nil {
		return err
	}
	write()
	w.BuildMode(req.Mode)
	return nil
}

// NamedDerivation reads a path and the derivation that is to be built under
// that name, as requests of this and the serve protocol have them.
func (r *Reader) NamedDerivation() (storepath.Path, *derivation.BasicDerivation, error) {
	p, err := r.StorePath()
	if err != nil {
		return p, nil, err
	}
	name, err := derivation.NameFromPath(p)
	if err != nil {
		return p, nil, err
	}
	d, err := r.BasicDerivation(name)
	return p, d, err
}

// NamedDerivation gives what writes what Reader.NamedDerivation reads. The
// error, which is that the derivation has no textual form, comes before
// anything is written.
func (w *Writer) NamedDerivation(p storepath.Path, d *derivation.BasicDerivation) (write func(), err error) {
	outputs, env, err := w.derivationTexts(d)
	return func() {
		w.StorePath(p)
		w.basicDerivation(d, outputs, env)
	}, err
}

// BasicDerivation reads:
//
//	count, then output name, path, method and algorithm, digest each;
//	input paths, platform, builder, arguments,
//	count, then name and value of each environment variable
func (r *Reader) BasicDerivation(name string) (*derivation.BasicDerivation, error) {
	d := &derivation.BasicDerivation{Name: name}
	var err error
	if d.Outputs, err = r.outputs(name); err != nil {
		return nil, err
	}
	if d.InputSrcs, err = r.StorePaths(); err != nil {
		return nil, err
	}
	if d.Platform, err = r.Text(); err != nil {
		return nil, err
	}
	if d.Builder, err = r.Text(); err != nil {
		return nil, err
	}
	if d.Args, err = r.Strings(wire.MaxCount, wire.MaxString); err != nil {
		return nil, err
	}
	env, err := r.environment()
	if err != nil {
		return nil, err
	}
	return d, d.SetFullEnv(env)
}

func (r *Reader) outputs(drvName string) (map[string]derivation.Output, error) {
	n, err := r.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	outputs := make(map[string]derivation.Output, wire.Capacity(n))
	for range n {
		var texts [4]string
		for i := range texts {
			if texts[i], err = r.Text(); err != nil {
				return nil, err
			}
		}
		if outputs[texts[0]], err = derivation.ParseOutput(r.Dir, drvName, texts[0], texts[1], texts[2], texts[3], r.Features); err != nil {
			return nil, err
		}
	}
	return outputs, nil
}

func (r *Reader) environment() ([][2]string, error) {
	n, err := r.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	env := make([][2]string, 0, wire.Capacity(n))
	for range n {
		name, err := r.String(wire.MaxString)
		if err != nil {
			return nil, err
		}
		value, err := r.String(wire.MaxString)
		if err != nil {
			return nil, err
		}
		env = append(env, [2]string{name, value})
	}
	return env, nil
}

// derivationTexts computes what may fail.
func (w *Writer) derivationTexts(d *derivation.BasicDerivation) (outputs [][4]string, env [][2]string, err error) {
	for _, name := range d.OutputNames() {
		path, algo, hash, err := d.Outputs[name].Texts(w.Dir, d.Name, name)
		if err != nil {
			return nil, nil, err
		}
		outputs = append(outputs, [4]string{name, path, algo, hash})
	}
	env, err = d.FullEnv()
	return outputs, env, err
}

func (w *Writer) basicDerivation(d *derivation.BasicDerivation, outputs [][4]string, env [][2]string) {
	w.Uint64(uint64(len(outputs)))
	for _, output := range outputs {
		for _, text := range output {
			w.String(text)
		}
	}
	w.StorePaths(d.InputSrcs)
	w.String(d.Platform)
	w.String(d.Builder)
	w.Strings(d.Args)
	w.Uint64(uint64(len(env)))
	for _, pair := range env {
		w.String(pair[0])
		w.String(pair[1])
	}
}
