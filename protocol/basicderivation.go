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
func (r *Reader) BuildDerivation() (BuildDerivationRequest, error) {
	var req BuildDerivationRequest
	var err error
	if req.DrvPath, err = r.StorePath(); err != nil {
		return req, err
	}
	name, err := derivation.NameFromPath(req.DrvPath)
	if err != nil {
		return req, err
	}
	if req.Derivation, err = r.BasicDerivation(name); err != nil {
		return req, err
	}
	req.Mode, err = r.BuildMode()
	return req, err
}

// BuildDerivation writes the request. It fails, before writing anything, for a
// derivation that has no textual form.
func (w *Writer) BuildDerivation(req BuildDerivationRequest) error {
	outputs, env, err := w.derivationTexts(req.Derivation)
	if err != nil {
		return err
	}
	w.StorePath(req.DrvPath)
	w.basicDerivation(req.Derivation, outputs, env)
	w.BuildMode(req.Mode)
	return nil
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

// BasicDerivation writes what Reader.BasicDerivation reads. It fails, before
// writing anything, for a derivation that has no textual form.
func (w *Writer) BasicDerivation(d *derivation.BasicDerivation) error {
	outputs, env, err := w.derivationTexts(d)
	if err == nil {
		w.basicDerivation(d, outputs, env)
	}
	return err
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
