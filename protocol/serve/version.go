package serve

import (
	"errors"
	"fmt"

	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

const (
	clientMagic = 0x390c9deb
	serverMagic = 0x5452eecb
)

// Version is a protocol version number: major<<8 | minor.
//
//	2.1  AddToStoreNar's and other types' first form
//	2.2  log size in build options
//	2.3  build times in results; repeats in build options
//	2.4  hash, content address and signatures in metadata
//	2.5  AddToStoreNar
//	2.6  outputs in build results
//	2.7  keep-failed in build options
//	2.8  outputs in build results by name and path
type Version uint16

// The numbers that matter.
const (
	// Latest is what we offer.
	Latest Version = 2<<8 | 8
	// Oldest is the smallest that a client accepts.
	Oldest Version = 2<<8 | 5
)

// AtLeast tells whether the number is 2.minor or larger.
func (v Version) AtLeast(minor uint8) bool { return v >= 2<<8|Version(minor) }

// String writes "2.8".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v>>8, v&0xff) }

// ErrMagic says that a client does not speak this protocol.
var ErrMagic = errors.New("protocol mismatch")

// Reader decodes what the other end sends. It is not safe for concurrent use.
type Reader struct {
	*protocol.Reader
	Version Version
}

// Writer encodes what is sent to the other end. Errors of the stream stick and
// come out of Flush. It is not safe for concurrent use.
type Writer struct {
	*protocol.Writer
	Version Version
}

// NewReader binds a stream to a version and a store directory.
func NewReader(in *wire.Reader, dir storepath.Dir, v Version) *Reader {
	return &Reader{protocol.NewReader(in, dir, v.shared()), v}
}

// NewWriter binds a stream to a version and a store directory.
func NewWriter(out *wire.Writer, dir storepath.Dir, v Version) *Writer {
	return &Writer{protocol.NewWriter(out, dir, v.shared()), v}
}

// shared is the version of the worker protocol whose types have the same form.
func (v Version) shared() protocol.Version {
	shared := protocol.Version{Number: protocol.Minor(28)}
	if v.AtLeast(8) {
		shared.Features = []protocol.Feature{protocol.FeatureRealisationWithPath}
	}
	return shared
}

// ServerHandshake logs a client in. The version is the smaller of the two; any
// is taken, as upstream does.
func ServerHandshake(in *wire.Reader, out *wire.Writer, dir storepath.Dir, local Version) (*Reader, *Writer, error) {
	magic, err := in.Uint32()
	if err != nil {
		return nil, nil, err
	}
	if magic != clientMagic {
		return nil, nil, ErrMagic
	}
	out.Uint64(serverMagic)
	out.Uint64(uint64(local))
	if err := out.Flush(); err != nil {
		return nil, nil, err
	}
	n, err := in.Uint32()
	if err != nil {
		return nil, nil, err
	}
	v := min(local, Version(n))
	return NewReader(in, dir, v), NewWriter(out, dir, v), nil
}

// ClientHandshake logs in to a server, which errors call by the name of its
// host.
func ClientHandshake(in *wire.Reader, out *wire.Writer, dir storepath.Dir, local Version, host string) (*Reader, *Writer, error) {
	out.Uint64(clientMagic)
	out.Uint64(uint64(local))
	// Who has ended without listening may have said something all the same, and what cannot be read tells of the end.
	_ = out.Flush()
	magic, err := in.Uint32()
	if err != nil {
		return nil, nil, err
	}
	if magic != serverMagic {
		return nil, nil, fmt.Errorf("'nix-store --serve' protocol mismatch from '%s'", host)
	}
	n, err := in.Uint32()
	if err != nil {
		return nil, nil, err
	}
	remote := Version(n)
	if remote>>8 != 2 || remote < Oldest {
		return nil, nil, fmt.Errorf("unsupported 'nix-store --serve' protocol version on '%s'", host)
	}
	v := min(local, remote)
	return NewReader(in, dir, v), NewWriter(out, dir, v), nil
}
