// Package compression reads and writes the compressions of binary caches and build logs.
//
// A method is named as in a narinfo's Compression field: "none", "xz", "zstd", "bzip2", "gzip", "br", "lzip", "lz4",
// "lzma" or "compress". [Decoders] open compressed streams for reading and keep what is dear to make for the next one;
// [NewWriter] compresses. Content encodings of HTTP have names of their own, for which there is [Decoders.Encoding].
//
// What is read comes from strangers. The memory of a decoder is bounded ([MaxDictionary], [MaxWindow]) whatever the
// stream asks for, and no output is held but what decoding looks back at; a caller who wants less of it stops reading.
//
// # What upstream does
//
// Release 2.34.8 reads with libarchive, one filter by the method's name (libutil/compression.cc, libutil/tarfile.cc).
// From it come these rules: concatenated members are one stream; what follows the last member of gzip, bzip2, lzip and
// compress is ignored, of xz and zstd it is an error; an empty stream, or one in another format, is "input compression
// not recognized". The external programs that libarchive runs for grzip, lrzip and lzop are not run here.
//
// # Libraries
//
// Measured with 200 MB of the Go toolchain on one core of a loaded machine: xz by ulikunitz/xz 34 MB/s, by
// therootcompany/xz 45 MB/s, by an xz process through a pipe 57 MB/s, by xz -d alone 70 MB/s; zstd by klauspost/compress
// 360 to 410 MB/s in the caller's goroutine, 610 MB/s with a second one. newXz is the one place where xz is chosen: the
// package beneath this one, which has since been given assembly and is about as fast as xz -d, and therootcompany/xz for the rare streams with filters
// that it does not know.
package compression
