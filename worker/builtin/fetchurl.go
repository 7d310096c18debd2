package builtin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nixdaemon/worker/builtin/builtinjob"
)

// copyBuffer is how much of a download is written at once.
const copyBuffer = 256 << 10

// fetchurl downloads a file, or an archive that it unpacks (libstore/builtins/fetchurl.cc).
func (b *builder) fetchurl(ctx context.Context) error {
	out, err := b.output()
	if err != nil {
		return err
	}
	if b.job.FixedAlgo == "" && !b.job.Impure {
		return failf("'builtin:fetchurl' must be a fixed-output or impure derivation")
	}
	mainURL, err := b.attribute("url")
	if err != nil {
		return err
	}
	f := newFetcher(b)
	defer f.close()
	t := &target{fetcher: f, out: out, unpack: b.job.Env["unpack"] == "1", executable: b.job.Env["executable"] == "1"}
	t.xz = t.unpack && strings.HasSuffix(mainURL, ".xz")
	for _, url := range mirrorURLs(b.job) {
		err := t.fetch(ctx, url)
		if err == nil || ctx.Err() != nil {
			return err
		}
		b.log.debug(errorLog(err))
	}
	return t.fetch(ctx, mainURL)
}

// mirrorURLs are where a file with the hash that is wanted may be found by it.
func mirrorURLs(job *builtinjob.Job) []string {
	algo := strings.TrimPrefix(job.FixedAlgo, "text:")
	if algo == "" || strings.Contains(algo, ":") {
		return nil
	}
	urls := make([]string, 0, len(job.HashedMirrors))
	for _, mirror := range job.HashedMirrors {
		urls = append(urls, strings.TrimSuffix(mirror, "/")+"/"+algo+"/"+job.FixedHash)
	}
	return urls
}

// target is what becomes of a download.
type target struct {
	fetcher                *fetcher
	out                    string
	unpack, xz, executable bool
	started                bool // something may have been made at out
}

func (t *target) fetch(ctx context.Context, url string) error {
	var err error
	if t.unpack {
		err = t.fetchTree(ctx, url)
	} else {
		err = t.fetchFile(ctx, url)
	}
	if err != nil || !t.executable {
		return err
	}
	info, err := os.Lstat(t.out)
	if err != nil {
		return err
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return nil // what it leads to is not ours
	}
	return os.Chmod(t.out, 0o755)
}

func (t *target) fetchFile(ctx context.Context, url string) (err error) {
	f, err := os.OpenFile(t.out, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o666)
	if err != nil {
		return sysFailf(err, "opening file %s", quoted(t.out))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := t.copy(ctx, f, url); err != nil {
		return during(err, "writing file %s", quoted(t.out))
	}
	return nil
}

func (t *target) copy(ctx context.Context, f *os.File, url string) error {
	d, err := t.fetcher.open(ctx, url, func() error {
		if err := f.Truncate(0); err != nil {
			return err
		}
		_, err := f.Seek(0, io.SeekStart)
		return err
	})
	if err != nil {
		return err
	}
	defer d.stop()
	// Without ReadFrom, which reads in small steps.
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, d, make([]byte, copyBuffer))
	if path, ok := errors.AsType[*fs.PathError](err); ok && path.Path == f.Name() {
		return sysFailf(err, "writing to file")
	}
	return err
}

func (t *target) fetchTree(ctx context.Context, url string) error {
	if t.started {
		if err := removeTree(t.out); err != nil {
			return err
		}
	}
	t.started = true
	d, err := t.fetcher.open(ctx, url, nil)
	if err != nil {
		return err
	}
	defer d.stop()
	if !t.xz {
		return d.orTransfer(restore(t.out, bufio.NewReaderSize(d, copyBuffer)))
	}
	x, err := t.fetcher.decoders.NewReader("xz", d)
	if err != nil {
		return d.orTransfer(err)
	}
	defer x.Close()
	return d.orTransfer(restore(t.out, bufio.NewReaderSize(x, copyBuffer)))
}
