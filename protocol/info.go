package protocol

import (
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// Info reads the metadata of a path, with its path:
//
//	path, then as InfoOf
func (r *Reader) Info() (*pathinfo.Info, error) {
	p, err := r.StorePath()
	if err != nil {
		return nil, err
	}
	return r.InfoOf(p)
}

// InfoOf reads the metadata of a known path:
//
//	deriver or "", sha256 of the NAR in base16, references,
//	registration time, NAR size,
//	(16) ultimate, signatures, content address or ""
func (r *Reader) InfoOf(p storepath.Path) (*pathinfo.Info, error) {
	info := &pathinfo.Info{Path: p}
	var err error
	if info.Deriver, err = r.OptionalStorePath(); err != nil {
		return nil, err
	}
	if info.NarHash, err = r.NarHash(); err != nil {
		return nil, err
	}
	if info.References, err = r.StorePaths(); err != nil {
		return nil, err
	}
	if info.RegistrationTime, err = r.Int64(); err != nil {
		return nil, err
	}
	if info.NarSize, err = r.Uint64(); err != nil || !r.Version.AtLeast(16) {
		return info, err
	}
	if info.Ultimate, err = r.Bool(); err != nil {
		return nil, err
	}
	if info.Sigs, err = r.Signatures(); err != nil {
		return nil, err
	}
	info.CA, err = r.ContentAddress()
	return info, err
}

// Info writes what Reader.Info reads.
func (w *Writer) Info(info *pathinfo.Info) {
	w.StorePath(info.Path)
	w.InfoOf(info)
}

// InfoOf writes what Reader.InfoOf reads.
func (w *Writer) InfoOf(info *pathinfo.Info) {
	w.StorePath(info.Deriver)
	w.NarHash(info.NarHash)
	w.StorePaths(info.References)
	w.Uint64(uint64(info.RegistrationTime))
	w.Uint64(info.NarSize)
	if !w.Version.AtLeast(16) {
		return
	}
	w.Bool(info.Ultimate)
	w.Signatures(info.Sigs)
	w.ContentAddress(info.CA)
}

// SubstitutableInfo is what is known of a path that could be substituted.
type SubstitutableInfo struct {
	Path                  storepath.Path
	Deriver               storepath.Path
	References            []storepath.Path
	DownloadSize, NarSize uint64
}

// SubstitutableInfo reads:
//
//	deriver or "", references, download size, NAR size
func (r *Reader) SubstitutableInfo(p storepath.Path) (SubstitutableInfo, error) {
	info := SubstitutableInfo{Path: p}
	var err error
	if info.Deriver, err = r.OptionalStorePath(); err != nil {
		return info, err
	}
	if info.References, err = r.StorePaths(); err != nil {
		return info, err
	}
	if info.DownloadSize, err = r.Uint64(); err != nil {
		return info, err
	}
	info.NarSize, err = r.Uint64()
	return info, err
}

// SubstitutableInfo writes what Reader.SubstitutableInfo reads.
func (w *Writer) SubstitutableInfo(info SubstitutableInfo) {
	w.StorePath(info.Deriver)
	w.StorePaths(info.References)
	w.Uint64(info.DownloadSize)
	w.Uint64(info.NarSize)
}
