// Package wire reads and writes the primitives that the worker protocol, the serve protocol,
// the export format and NARs are made of: integers, padded strings, bools, lists and framed streams.
//
// A [Reader] decodes from a stream and a [Writer] encodes to one; both own a small buffer,
// allocated at first use, so that an idle connection costs little.
// Large payloads go past the buffers.
// A [FramedReader] and a [FramedWriter] carry a stream of unknown length inside such a stream.
//
// # Layout
//
// An integer is 8 bytes, little endian, unsigned; narrower types are range-checked when read.
// A string is its length, its bytes, and zero bytes up to a multiple of 8.
// A list is its count and its elements. A framed stream is a sequence of chunks,
// each a length below 2^32 and that many bytes without padding, ended by a length of 0.
//
// # Hostile input
//
// Every length and count is compared with a limit given by the caller before anything is allocated,
// memory is claimed only as bytes arrive, and [Reader.SetBudget] bounds what one request may claim in total.
// [Reader.Share] bounds what the requests of several connections may claim together.
// Malformed input is an [Error]; what the transport reports comes through unchanged.
// The end of the stream is [io.EOF] before the first byte of a value and [io.ErrUnexpectedEOF] inside one.
//
// Neither a Reader nor a Writer may be used by several goroutines at once; one of each may serve the
// two directions of a connection concurrently.
package wire
