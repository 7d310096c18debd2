package builtin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/compression"
)

// blockSize is what tar archives consist of, in bytes.
const blockSize = 512

// unpackChannel unpacks a channel's expressions (libstore/builtins/unpack-channel.cc).
func (b *builder) unpackChannel(ctx context.Context) error {
	out, err := b.output()
	if err != nil {
		return err
	}
	name, err := b.attribute("channelName")
	if err != nil {
		return err
	}
	src, err := b.attribute("src")
	if err != nil {
		return err
	}
	if strings.Contains(name, "/") {
		return failf("channelName is not allowed to contain filesystem separators, got %s", name)
	}
	if err := makeDir(out); err != nil {
		return err
	}
	dir, err := os.OpenFile(out, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return sysFailf(err, "opening directory %s", quoted(out))
	}
	defer dir.Close()
	if err := unpackArchive(ctx, src, dir); err != nil {
		return err
	}
	entry, err := onlyEntry(dir, src)
	if err != nil {
		return err
	}
	from, to := filepath.Join(out, entry), out+"/"+name
	if err := unix.Rename(from, to); err != nil {
		return sysFailf(err, "failed to rename %s to %s", from, to)
	}
	return nil
}

// onlyEntry is the name of the one thing that a channel has at its top.
func onlyEntry(dir *os.File, src string) (string, error) {
	names, err := dir.Readdirnames(2)
	if err != nil && err != io.EOF {
		return "", sysFailf(err, "cannot read directory %s", quoted(dir.Name()))
	}
	switch len(names) {
	case 0:
		return "", failf("channel tarball '%s' is empty", src)
	case 1:
		return names[0], nil
	}
	return "", failf("channel tarball '%s' contains more than one file", src)
}

// unpackArchive unpacks the file src, compressed or not, beneath dir. An empty file is an archive of nothing.
func unpackArchive(ctx context.Context, src string, dir *os.File) error {
	f, err := os.Open(src)
	if err != nil {
		return failf("failed to open archive: %s", "Failed to open '"+src+"'")
	}
	defer f.Close()
	raw := bufio.NewReaderSize(&contextReader{ctx, f}, 64<<10)
	if _, err := raw.Peek(1); err == io.EOF {
		return nil
	} else if errors.Is(err, unix.EISDIR) {
		return failf("failed to open archive: %s", "Error reading '"+src+"'")
	} else if err != nil {
		return sysFailf(err, "reading file %s", quoted(src))
	}
	contents, method, err := new(compression.Decoders).Sniff(raw)
	if method == "none" {
		method = ""
	}
	if err != nil {
		return failf("failed to open archive: %s", archiveText(err, method))
	}
	defer contents.Close()
	r := bufio.NewReaderSize(contents, 64<<10)
	// An archive's first block tells what it is.
	if head, err := r.Peek(blockSize); err == io.EOF && len(head) > 0 {
		return failf("failed to open archive: %s", "Unrecognized archive format")
	}
	return (&untar{top: dir, compression: method}).extract(r)
}

// archiveText describes an error in an archive.
func archiveText(err error, compression string) string {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		if compression == "" {
			return "Truncated tar archive"
		}
		return "truncated " + compression + " input"
	}
	return err.Error()
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context // of the one call that reads
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
