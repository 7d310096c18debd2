package protocol

import (
	"maps"
	"slices"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// Missing is the reply to OpQueryMissing.
//
//	will build, will substitute, unknown: sets of paths; download size, NAR size
type Missing struct {
	WillBuild, WillSubstitute, Unknown []storepath.Path
	DownloadSize, NarSize              uint64
}

// Missing reads the reply.
func (r *Reader) Missing() (Missing, error) {
	var m Missing
	for _, set := range []*[]storepath.Path{&m.WillBuild, &m.WillSubstitute, &m.Unknown} {
		var err error
		if *set, err = r.StorePaths(); err != nil {
			return m, err
		}
	}
	var err error
	if m.DownloadSize, err = r.Uint64(); err != nil {
		return m, err
	}
	m.NarSize, err = r.Uint64()
	return m, err
}

// Missing writes the reply.
func (w *Writer) Missing(m Missing) {
	w.StorePaths(m.WillBuild)
	w.StorePaths(m.WillSubstitute)
	w.StorePaths(m.Unknown)
	w.Uint64(m.DownloadSize)
	w.Uint64(m.NarSize)
}

// OutputMap reads a map of output names to paths, the zero path where the
// path is not known: count, then name and path or "" each.
func (r *Reader) OutputMap() (map[string]storepath.Path, error) {
	n, err := r.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	outputs := make(map[string]storepath.Path, wire.Capacity(n))
	for range n {
		name, err := r.Text()
		if err != nil {
			return nil, err
		}
		if outputs[name], err = r.OptionalStorePath(); err != nil {
			return nil, err
		}
	}
	return outputs, nil
}

// OutputMap writes what Reader.OutputMap reads, sorted by name.
func (w *Writer) OutputMap(outputs map[string]storepath.Path) {
	w.Uint64(uint64(len(outputs)))
	for _, name := range slices.Sorted(maps.Keys(outputs)) {
		w.String(name)
		w.StorePath(outputs[name])
	}
}

// SubstitutableQuery reads what OpQuerySubstitutablePathInfos asks about:
//
//	(22) count, then path and content address or "" each
//	     paths
func (r *Reader) SubstitutableQuery() (map[storepath.Path]storepath.ContentAddress, error) {
	if !r.Version.AtLeast(22) {
		paths, err := r.StorePaths()
		query := make(map[storepath.Path]storepath.ContentAddress, len(paths))
		for _, p := range paths {
			query[p] = storepath.ContentAddress{}
		}
		return query, err
	}
	n, err := r.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	query := make(map[storepath.Path]storepath.ContentAddress, wire.Capacity(n))
	for range n {
		p, err := r.StorePath()
		if err != nil {
			return nil, err
		}
		if query[p], err = r.ContentAddress(); err != nil {
			return nil, err
		}
	}
	return query, nil
}

// FileName reads a file name of the daemon's machine.
func (r *Reader) FileName() (string, error) { return r.String(wire.MaxPath) }

// BuildMode reads a build mode.
func (r *Reader) BuildMode() (derivation.BuildMode, error) {
	mode, err := r.Uint8()
	if err == nil && mode > uint8(derivation.BuildCheck) {
		err = wire.Errorf("Invalid build mode")
	}
	return derivation.BuildMode(mode), err
}

// BuildMode writes a build mode.
func (w *Writer) BuildMode(mode derivation.BuildMode) { w.Uint64(uint64(mode)) }
