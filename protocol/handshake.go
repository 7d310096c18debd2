package protocol

import (
	"errors"
	"fmt"
	"slices"

	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// The magic numbers that open a connection, "nixc" and "dxio".
const (
	clientMagic = 0x6e697863
	serverMagic = 0x6478696f
)

// Limits on the feature exchange: today's clients offer five.
const (
	maxFeatures      = 1024
	maxFeatureLength = 256
)

var (
	// ErrMagic says that the peer is no Nix client. Nothing was sent to it.
	ErrMagic = errors.New("protocol mismatch")
	// ErrClientTooOld says that the client's version is below Oldest; it sees
	// its connection closed.
	ErrClientTooOld = errors.New("the Nix client version is too old")
	// ErrServerMagic says that the peer is no Nix daemon.
	ErrServerMagic = errors.New("nix-daemon protocol mismatch from")
	// ErrMajor says that the daemon speaks another protocol.
	ErrMajor = errors.New("Nix daemon protocol version not supported")
	// ErrServerTooOld says that the daemon's version is below Oldest.
	ErrServerTooOld = errors.New("the Nix daemon version is too old")
)

// Trust is whether the daemon trusts the client.
type Trust uint8

// The values of the optional trusted flag.
const (
	TrustUnknown Trust = 0
	Trusted      Trust = 1
	NotTrusted   Trust = 2
)

// ServerInfo is what a daemon says of itself at the end of the login.
type ServerInfo struct {
	// NixVersion is the daemon's release (33).
	NixVersion string
	// Trust is the client's standing (35).
	Trust Trust
}

// ServerHandshake answers a client's greeting, offering local and saying info.
// It leaves the final frames of the login, and the flush, to the caller.
func ServerHandshake(in *wire.Reader, out *wire.Writer, dir storepath.Dir, local Version, info ServerInfo) (*Reader, *Writer, error) {
	version, err := serverExchange(in, out, local)
	if err != nil {
		return nil, nil, err
	}
	if version.Number < Oldest {
		return nil, nil, ErrClientTooOld
	}
	if err := discardAffinity(in); err != nil {
		return nil, nil, err
	}
	w := NewWriter(out, dir, version)
	w.serverInfo(info)
	return NewReader(in, dir, version), w, nil
}

func serverExchange(in *wire.Reader, out *wire.Writer, local Version) (Version, error) {
	magic, err := in.Uint32()
	if err != nil {
		return Version{}, fmt.Errorf("read greeting: %w", err)
	}
	if magic != clientMagic {
		return Version{}, ErrMagic
	}
	out.Uint64(serverMagic)
	out.Uint64(uint64(local.Number))
	if err := out.Flush(); err != nil {
		return Version{}, err
	}
	number, err := in.Uint32()
	if err != nil {
		return Version{}, fmt.Errorf("read client version: %w", err)
	}
	peer := Version{Number: clampNumber(number)}
	if min(peer.Number, local.Number) < Minor(38) {
		return Negotiate(local, peer), nil
	}
	if peer.Features, err = readFeatures(in); err != nil {
		return Version{}, err
	}
	writeFeatures(out, local.Features)
	return Negotiate(local, peer), out.Flush()
}

// clampNumber keeps the order of numbers that do not fit: a client of a far
// future is one of at least our version.
func clampNumber(n uint32) Number { return Number(min(n, 1<<16-1)) }

func readFeatures(in *wire.Reader) ([]Feature, error) {
	names, err := in.Strings(maxFeatures, maxFeatureLength)
	if err != nil {
		return nil, fmt.Errorf("read features: %w", err)
	}
	features := make([]Feature, len(names))
	for i, name := range names {
		features[i] = Feature(name)
	}
	return features, nil
}

func writeFeatures(out *wire.Writer, features []Feature) {
	sorted := slices.Sorted(slices.Values(features))
	out.Uint64(uint64(len(sorted)))
	for _, f := range sorted {
		out.String(string(f))
	}
}

// discardAffinity skips a CPU affinity, present if its flag says so, and the
// "reserve space" flag; both have had no effect for years.
func discardAffinity(in *wire.Reader) error {
	present, err := in.Uint32()
	if err == nil && present != 0 {
		_, err = in.Uint32()
	}
	if err == nil {
		_, err = in.Uint32()
	}
	return err
}

func (w *Writer) serverInfo(info ServerInfo) {
	if w.Version.AtLeast(33) {
		w.String(info.NixVersion)
	}
	if w.Version.AtLeast(35) {
		w.Uint64(uint64(info.Trust))
	}
}

// ClientHandshake greets a daemon, offering local. The final frames of the
// login are left to the caller.
func ClientHandshake(in *wire.Reader, out *wire.Writer, dir storepath.Dir, local Version) (*Reader, *Writer, ServerInfo, error) {
	version, err := clientExchange(in, out, local)
	if err != nil {
		return nil, nil, ServerInfo{}, err
	}
	out.Uint64(0) // no CPU affinity
	out.Uint64(0) // no reserved space
	if err := out.Flush(); err != nil {
		return nil, nil, ServerInfo{}, err
	}
	r := NewReader(in, dir, version)
	info, err := r.serverInfo()
	return r, NewWriter(out, dir, version), info, err
}

func clientExchange(in *wire.Reader, out *wire.Writer, local Version) (Version, error) {
	out.Uint64(clientMagic)
	out.Uint64(uint64(local.Number))
	// Who has ended without listening may have said something all the same, and what cannot be read tells of the end.
	_ = out.Flush()
	magic, err := in.Uint32()
	if err != nil {
		return Version{}, err
	}
	if magic != serverMagic {
		return Version{}, ErrServerMagic
	}
	number, err := in.Uint32()
	if err != nil {
		return Version{}, err
	}
	peer := Version{Number: clampNumber(number)}
	if peer.Number.Major() != Latest.Major() {
		return Version{}, ErrMajor
	}
	if peer.Number < Oldest {
		return Version{}, ErrServerTooOld
	}
	if min(peer.Number, local.Number) < Minor(38) {
		return Negotiate(local, peer), nil
	}
	writeFeatures(out, local.Features)
	if err := out.Flush(); err != nil {
		return Version{}, err
	}
	peer.Features, err = readFeatures(in)
	return Negotiate(local, peer), err
}

func (r *Reader) serverInfo() (ServerInfo, error) {
	var info ServerInfo
	var err error
	if r.Version.AtLeast(33) {
		if info.NixVersion, err = r.String(wire.MaxShortString); err != nil {
			return info, err
		}
	}
	if r.Version.AtLeast(35) {
		info.Trust, err = r.trust()
	}
	return info, err
}

func (r *Reader) trust() (Trust, error) {
	tag, err := r.Uint8()
	if err == nil && tag > uint8(NotTrusted) {
		err = wire.Errorf("Invalid trusted status from remote")
	}
	return Trust(tag), err
}
