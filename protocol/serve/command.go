package serve

import (
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// Command is a request.
type Command uint64

// The commands. Those marked so need a server that was started with --write.
const (
	// QueryValidPaths asks which paths are valid, and on servers with --write
	// makes them temporary roots or substitutes them before.
	// Request: ValidPathsRequest. Reply: paths.
	QueryValidPaths Command = 1
	// QueryPathInfos asks for metadata.
	// Request: paths. Reply: for each valid one path and Info, then "".
	QueryPathInfos Command = 2
	// DumpStorePath asks for an archive. Request: path. Reply: a raw NAR.
	DumpStorePath Command = 3
	// ImportPaths adds paths (--write).
	// Request: a stream in the format of "nix-store --export". Reply: 1.
	ImportPaths Command = 4
	// 5 was ExportPaths; do not reuse.

	// BuildPaths builds (--write).
	// Request: texts of paths with outputs, BuildOptions.
	// Reply: 0, or an exit status and a message.
	BuildPaths Command = 6
	// QueryClosure asks for closures.
	// Request: whether to include outputs, paths. Reply: paths.
	QueryClosure Command = 7
	// BuildDerivation builds (--write).
	// Request: BuildDerivationRequest. Reply: BuildResult.
	BuildDerivation Command = 8
	// AddToStoreNar adds a path (--write, 2.5).
	// Request: Addition, then a raw NAR of its size. Reply: 1.
	AddToStoreNar Command = 9
)

// Command reads the number of the next request.
func (r *Reader) Command() (Command, error) {
	n, err := r.Uint32()
	return Command(n), err
}

// Command writes the number of a request.
func (w *Writer) Command(c Command) { w.Uint64(uint64(c)) }

// ValidPathsRequest is QueryValidPaths.
//
//	lock, substitute, paths
type ValidPathsRequest struct {
	Lock, Substitute bool
	Paths            []storepath.Path
}

// ValidPaths reads the request.
func (r *Reader) ValidPaths() (req ValidPathsRequest, err error) {
	if req.Lock, err = r.Bool(); err != nil {
		return req, err
	}
	if req.Substitute, err = r.Bool(); err != nil {
		return req, err
	}
	req.Paths, err = r.StorePaths()
	return req, err
}

// ValidPaths writes the request.
func (w *Writer) ValidPaths(req ValidPathsRequest) {
	w.Bool(req.Lock)
	w.Bool(req.Substitute)
	w.StorePaths(req.Paths)
}

// Info reads the metadata of a path:
//
//	deriver or "", references, download size, NAR size,
//	(2.4) hash with its algorithm or "", content address, signatures
//
// Before 2.4 the hash is the zero one.
func (r *Reader) Info(p storepath.Path) (*pathinfo.Info, error) {
	info := &pathinfo.Info{Path: p}
	var err error
	if info.Deriver, err = r.OptionalStorePath(); err != nil {
		return nil, err
	}
	if info.References, err = r.StorePaths(); err != nil {
		return nil, err
	}
	if _, err := r.Uint64(); err != nil { // what a download would take
		return nil, err
	}
	if info.NarSize, err = r.Uint64(); err != nil || !r.Version.AtLeast(4) {
		return info, err
	}
	if info.NarHash, err = r.hash(); err != nil {
		return nil, err
	}
	if info.CA, err = r.ContentAddress(); err != nil {
		return nil, err
	}
	info.Sigs, err = r.Signatures()
	return info, err
}

func (r *Reader) hash() (nixhash.Hash, error) {
	text, err := r.Text()
	if err != nil || text == "" {
		return nixhash.Hash{}, err
	}
	h, err := nixhash.ParseAny(text, nixhash.SHA256)
	if err == nil && h.Algo() != nixhash.SHA256 {
		err = wire.Errorf("hash '%s' of an archive is not a SHA-256 hash", text)
	}
	return h, err
}

// Info writes what Reader.Info reads.
func (w *Writer) Info(info *pathinfo.Info) {
	w.StorePath(info.Deriver)
	w.StorePaths(info.References)
	w.Uint64(info.NarSize)
	w.Uint64(info.NarSize)
	if !w.Version.AtLeast(4) {
		return
	}
	if info.NarHash.IsZero() {
		w.String("")
	} else {
		w.String(info.NarHash.Format(nixhash.Nix32, true))
	}
	w.ContentAddress(info.CA)
	w.Signatures(info.Sigs)
}

// BuildOptions are settings of one build.
//
//	silent time, build time,
//	(2.2) log size,
//	(2.3) repeats, enforce determinism,
//	(2.7) keep failed
type BuildOptions struct {
	// MaxSilentTime and BuildTimeout are in seconds, 0 for no bound.
	MaxSilentTime, BuildTimeout uint64
	// MaxLogSize is in bytes, 0 for no bound.
	MaxLogSize uint64
	// Repeats is how often to build again; only 0 is known to servers.
	Repeats uint64
	// EnforceDeterminism means nothing.
	EnforceDeterminism bool
	KeepFailed         bool
	// Version is the one they were read in: what is newer is zero.
	Version Version
}

// BuildOptions reads them. Times are as bounded as upstream's integers.
func (r *Reader) BuildOptions() (o BuildOptions, err error) {
	o.Version = r.Version
	if o.MaxSilentTime, err = r.small(); err != nil {
		return o, err
	}
	if o.BuildTimeout, err = r.small(); err != nil || !r.Version.AtLeast(2) {
		return o, err
	}
	if o.MaxLogSize, err = r.Uint64(); err != nil || !r.Version.AtLeast(3) {
		return o, err
	}
	if o.Repeats, err = r.small(); err != nil {
		return o, err
	}
	if o.EnforceDeterminism, err = r.Bool(); err != nil || !r.Version.AtLeast(7) {
		return o, err
	}
	o.KeepFailed, err = r.Bool()
	return o, err
}

func (r *Reader) small() (uint64, error) {
	n, err := r.Uint32()
	return uint64(n), err
}

// BuildOptions writes what Reader.BuildOptions reads.
func (w *Writer) BuildOptions(o BuildOptions) {
	w.Uint64(o.MaxSilentTime)
	w.Uint64(o.BuildTimeout)
	if w.Version.AtLeast(2) {
		w.Uint64(o.MaxLogSize)
	}
	if w.Version.AtLeast(3) {
		w.Uint64(o.Repeats)
		w.Bool(o.EnforceDeterminism)
	}
	if w.Version.AtLeast(7) {
		w.Bool(o.KeepFailed)
	}
}

// BuildPathsRequest is BuildPaths.
//
//	paths as derivation.ParsePathWithOutputs reads them, BuildOptions
type BuildPathsRequest struct {
	Paths   []derivation.DerivedPath
	Options BuildOptions
}

// BuildPaths reads the request.
func (r *Reader) BuildPaths() (req BuildPathsRequest, err error) {
	texts, err := r.Strings(wire.MaxCount, wire.MaxShortString)
	if err != nil {
		return req, err
	}
	for _, text := range texts {
		p, err := derivation.ParsePathWithOutputs(r.Dir, text)
		if err != nil {
			return req, err
		}
		req.Paths = append(req.Paths, p)
	}
	req.Options, err = r.BuildOptions()
	return req, err
}

// BuildDerivationRequest is BuildDerivation.
//
//	derivation's path, BasicDerivation, BuildOptions
type BuildDerivationRequest struct {
	DrvPath    storepath.Path
	Derivation *derivation.BasicDerivation
	Options    BuildOptions
}

// BuildDerivation reads the request. The derivation has the name of its path.
func (r *Reader) BuildDerivation() (req BuildDerivationRequest, err error) {
	if req.DrvPath, req.Derivation, err = r.NamedDerivation(); err != nil {
		return req, err
	}
	req.Options, err = r.BuildOptions()
	return req, err
}

// BuildDerivation writes the command with its request. It fails, before writing
// anything, for a derivation that has no textual form.
func (w *Writer) BuildDerivation(req BuildDerivationRequest) error {
	write, err := w.NamedDerivation(req.DrvPath, req.Derivation)
	if err != nil {
		return err
	}
	w.Command(BuildDerivation)
	write()
	w.BuildOptions(req.Options)
	return nil
}

// BuildResult reads:
//
//	status, message,
//	(2.3) times built, not deterministic, start, stop,
//	(2.8) count, then output name, path and signatures each; else
//	(2.6) count, then an id and JSON as text each
func (r *Reader) BuildResult() (derivation.BuildResult, error) {
	var res derivation.BuildResult
	n, err := r.Uint8()
	if err != nil {
		return res, err
	}
	if res.Status, err = derivation.ParseBuildStatus(uint64(n)); err != nil {
		return res, err
	}
	if res.ErrorMsg, err = r.String(wire.MaxString); err != nil || !r.Version.AtLeast(3) {
		return res, err
	}
	if res.TimesBuilt, err = r.Uint64(); err != nil {
		return res, err
	}
	if res.IsNonDeterministic, err = r.Bool(); err != nil {
		return res, err
	}
	if res.StartTime, err = r.Int64(); err != nil {
		return res, err
	}
	if res.StopTime, err = r.Int64(); err != nil || !r.Version.AtLeast(6) {
		return res, err
	}
	res.BuiltOutputs, err = r.BuiltOutputs()
	return res, err
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
	if w.Version.AtLeast(3) {
		w.Uint64(res.TimesBuilt)
		w.Bool(res.IsNonDeterministic)
		w.Int64(res.StartTime)
		w.Int64(res.StopTime)
	}
	if w.Version.AtLeast(6) {
		w.BuiltOutputs(res.BuiltOutputs)
	}
}

// Addition reads the metadata of an AddToStoreNar:
//
//	path, deriver or "", hash in base16, references, registration time,
//	NAR size, ultimate, signatures, content address
func (r *Reader) Addition() (*pathinfo.Info, error) {
	info, err := r.Reader.Info() // of any version since 1.16
	if err == nil && info.NarSize == 0 {
		err = errNoSize
	}
	return info, err
}

// Addition writes what Reader.Addition reads.
func (w *Writer) Addition(info *pathinfo.Info) { w.Writer.Info(info) }
