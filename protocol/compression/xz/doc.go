// Package xz reads .xz streams, the form in which most binary caches keep their archives.
//
// A file is one or more streams; a stream is a header, blocks, an index of the blocks and a footer; a block is a
// header and data that went through filters. The filter that matters is LZMA2, a sequence of chunks, each stored or
// compressed with LZMA. An LZMA chunk is decoded from a buffer that holds all of it into the dictionary, which is at
// the same time the output: the bytes that a reader gets are copied out of it. Blocks with other filters in front
// (branch converters, delta) are refused with [ErrFilter].
//
// There are libraries that do this; the fastest of them reads at a third of liblzma's speed, and decompression is what
// the substitution of a big path waits for. Each bit depends on the one before, so what counts is how few steps there are
// from one to the next. On amd64 assembly keeps the whole state in registers, loads the probabilities of both nodes that
// may come next before it knows which, and chooses with conditional moves, which no compiler makes of what Go can say. It
// is a third faster than the Go code, which other processors and the build tag purego have, and which says what is right
// in the tests: 64 MB of shared libraries take 0.86 s, with Go 1.13 s, the xz program of liblzma 5.8 0.80 s (5.4: 1.2 s).
//
// The format is that of "The .xz File Format", version 1.2.1 (xz-file-format.txt of XZ Utils); LZMA2 has no document of
// its own: its facts are those of the public-domain LZMA SDK.
package xz
