package protocol

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// BuildResult reads:
//
//	status, message,
//	(29) times built, not deterministic, start, stop,
//	(37) user time, system time: 0, or 1 and microseconds, each,
//	{realisation-with-path-not-hash} count, then output name, path and
//	     signatures each; else
//	(28) count, then an id and JSON as text each
//
// The CPU times stand before the outputs although they came later.
func (r *Reader) BuildResult() (derivation.BuildResult, error) {
	var res derivation.BuildResult
	status, err := r.Uint8()
	if err != nil {
		return res, err
	}
	if status > uint8(derivation.StatusNoSubstituters) {
		return res, wire.Errorf("Invalid BuildResult status %d from remote", status)
	}
	res.Status = derivation.BuildStatus(status)
	if res.ErrorMsg, err = r.String(wire.MaxString); err != nil {
		return res, err
	}
	if r.Version.AtLeast(29) {
		if err := r.buildTimes(&res); err != nil {
			return res, err
		}
	}
	if r.Version.AtLeast(37) {
		if res.CPUUser, err = r.optionalMicros(); err != nil {
			return res, err
		}
		if res.CPUSystem, err = r.optionalMicros(); err != nil {
			return res, err
		}
	}
	res.BuiltOutputs, err = r.BuiltOutputs()
	return res, err
}

func (r *Reader) buildTimes(res *derivation.BuildResult) (err error) {
	if res.TimesBuilt, err = r.Uint64(); err != nil {
		return err
	}
	if res.IsNonDeterministic, err = r.Bool(); err != nil {
		return err
	}
	if res.StartTime, err = r.Int64(); err != nil {
		return err
	}
	res.StopTime, err = r.Int64()
	return err
}

func (r *Reader) optionalMicros() (*int64, error) {
	tag, err := r.Uint8()
	switch {
	case err != nil || tag == 0:
		return nil, err
	case tag == 1:
		micros, err := r.Int64()
		return &micros, err
	}
	return nil, wire.Errorf("Invalid optional tag from remote")
}

// BuiltOutputs reads the outputs of a build, as BuildResult describes them.
func (r *Reader) BuiltOutputs() (map[string]pathinfo.Realisation, error) {
	byPath := r.Version.Has(FeatureRealisationWithPath)
	if !byPath && !r.Version.AtLeast(28) {
		return nil, nil
	}
	n, err := r.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	outputs := make(map[string]pathinfo.Realisation, wire.Capacity(n))
	for range n {
		key, err := r.Text()
		if err != nil {
			return nil, err
		}
		var built *pathinfo.Realisation
		if byPath {
			built, err = r.unkeyedRealisation(pathinfo.DrvOutput{Output: key})
		} else {
			built, err = r.builtOutput(key)
		}
		if err != nil {
			return nil, err
		}
		outputs[built.ID.Output] = *built
	}
	return outputs, nil
}

// builtOutput reads the JSON of an output whose id is known. Daemons from 2.35
// on send dummy ids to peers without the feature; the path is what counts.
func (r *Reader) builtOutput(id string) (*pathinfo.Realisation, error) {
	_, output, ok := strings.Cut(id, "!")
	if !ok {
		return nil, wire.Errorf("Invalid derivation output id %s", id)
	}
	text, err := r.Text()
	if err != nil {
		return nil, err
	}
	if id != pathinfo.DummyID(output) {
		return pathinfo.ParseRealisation(text)
	}
	var value struct {
		OutPath string `json:"outPath"`
	}
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return nil, fmt.Errorf("parse built output '%s': %w", id, err)
	}
	p, err := storepath.ParseBase(value.OutPath)
	return &pathinfo.Realisation{ID: pathinfo.DrvOutput{Output: output}, OutPath: p}, err
}

// BuildResult writes what Reader.BuildResult reads. Success carries no message
// and failure no outputs, whatever the value holds.
func (w *Writer) BuildResult(res derivation.BuildResult) {
	if res.Status.Success() {
		res.ErrorMsg, res.IsNonDeterministic = "", false
	} else {
		res.BuiltOutputs = nil
	}
	w.Uint64(uint64(res.Status))
	w.String(res.ErrorMsg)
	if w.Version.AtLeast(29) {
		w.Uint64(res.TimesBuilt)
		w.Bool(res.IsNonDeterministic)
		w.Uint64(uint64(res.StartTime))
		w.Uint64(uint64(res.StopTime))
	}
	if w.Version.AtLeast(37) {
		w.optionalMicros(res.CPUUser)
		w.optionalMicros(res.CPUSystem)
	}
	w.BuiltOutputs(res.BuiltOutputs)
}

func (w *Writer) optionalMicros(micros *int64) {
	w.Bool(micros != nil)
	if micros != nil {
		w.Uint64(uint64(*micros))
	}
}

// BuiltOutputs writes what Reader.BuiltOutputs reads.
func (w *Writer) BuiltOutputs(outputs map[string]pathinfo.Realisation) {
	if w.Version.Has(FeatureRealisationWithPath) {
		w.Uint64(uint64(len(outputs)))
		for _, name := range slices.Sorted(maps.Keys(outputs)) {
			built := outputs[name]
			w.String(name)
			w.unkeyedRealisation(&built)
		}
		return
	}
	if !w.Version.AtLeast(28) {
		return
	}
	byID := make(map[string]string, len(outputs))
	for name, built := range outputs {
		id, text := oldBuiltOutput(name, built)
		byID[id] = text
	}
	w.Uint64(uint64(len(byID)))
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		w.String(id)
		w.String(byID[id])
	}
}

// oldBuiltOutput gives the id and the JSON for peers before 2.35. Where the
// derivation's hash modulo is not known, the dummy id of 2.35 must do.
func oldBuiltOutput(name string, built pathinfo.Realisation) (id, text string) {
	built.ID.Output = name
	if built.ID.DrvHash.IsZero() {
		return pathinfo.DummyID(name), built.DummyJSON()
	}
	return built.ID.HashID(), built.HashJSON()
}

// KeyedBuildResults reads a list of a DerivedPath and a BuildResult each.
func (r *Reader) KeyedBuildResults() ([]derivation.KeyedBuildResult, error) {
	n, err := r.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	results := make([]derivation.KeyedBuildResult, 0, wire.Capacity(n))
	for range n {
		p, err := r.DerivedPath()
		if err != nil {
			return nil, err
		}
		res, err := r.BuildResult()
		if err != nil {
			return nil, err
		}
		results = append(results, derivation.KeyedBuildResult{Path: p, BuildResult: res})
	}
	return results, nil
}

// KeyedBuildResults writes what Reader.KeyedBuildResults reads.
func (w *Writer) KeyedBuildResults(results []derivation.KeyedBuildResult) {
	w.Uint64(uint64(len(results)))
	for _, res := range results {
		w.DerivedPath(res.Path)
		w.BuildResult(res.BuildResult)
	}
}
