// Package xz reads .xz streams, the form in which most binary caches keep their archives.
//
// A file is one or more streams; a stream is a header, blocks, an index of the blocks and a footer; a block is a
// header and data that went through filters. The filter that matters is LZMA2, a sequence of chunks, each stored or
// compressed with LZMA. An LZMA chunk is decoded from a buffer that holds all of it into the dictionary, which is at
// the same time the output: the bytes that a reader gets are copied out of it. Blocks with other filters in front
// (branch converters, delta) are refused with [ErrFilter].
//
// There are libraries that do this; the fastest of them reads at half the speed of liblzma, and decompression is what
// the substitution of a big path waits for. This package keeps the state of the range decoder in registers, decodes
// most bits without branches, and reads at nine tenths of that speed (200 MB of shared libraries: 3.8 s, the xz program
// 3.6 s).
//
// The format is that of "The .xz File Format", version 1.2.1 (xz-file-format.txt of XZ Utils); LZMA2 has no document of
// its own: its facts are those of the public-domain LZMA SDK.
package xz
