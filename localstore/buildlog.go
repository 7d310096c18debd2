package localstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"nixdaemon/protocol/compression"
	"nixdaemon/protocol/storepath"
)

// logsName is the directory of build logs within the log directory.
const logsName = "drvs"

// compressedSuffix marks logs that are compressed.
const compressedSuffix = ".bz2"

// BuildLogs are the logs of builds in a log directory.
type BuildLogs struct {
	// Dir is the log directory.
	Dir      string
	encoders compression.Encoders
}

func (l *BuildLogs) path(drv storepath.Path) string {
	base := drv.Base()
	return filepath.Join(l.Dir, logsName, base[:2], base[2:])
}

func (s *Store) buildLog(drv storepath.Path) string { return s.logs.path(drv) }

// BuildLogs are the logs of the store's builds.
func (s *Store) BuildLogs() *BuildLogs { return &s.logs }

// Create makes or truncates the log of a derivation's build. What is written appears in the file at the latest when it is
// closed; plain logs at once.
func (l *BuildLogs) Create(drv storepath.Path, compress bool) (io.WriteCloser, error) {
	path := l.path(drv)
	if compress {
		path += compressedSuffix
	}
	const flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	f, err := os.OpenFile(path, flags, 0o666)
	if errors.Is(err, fs.ErrNotExist) {
		if err := mkdirAll(filepath.Dir(path)); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(path, flags, 0o666)
	}
	if err != nil {
		return nil, fmt.Errorf("creating log file \"%s\": %w", path, errors.Unwrap(err))
	}
	if !compress {
		return f, nil
	}
	return &logWriter{file: f, encoders: &l.encoders}, nil
}

// AddBuildLog adds a log that was made elsewhere, unless there is a compressed one already. It reads all of r.
func (s *Store) AddBuildLog(ctx context.Context, drv storepath.Path, r io.Reader) error {
	r = ctxReader(ctx, r)
	path := s.buildLog(drv) + compressedSuffix
	if _, err := os.Stat(path); err == nil {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	if err := mkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	temp := path + ".tmp." + strconv.Itoa(os.Getpid()) + "." + strconv.FormatUint(s.staged.last.Add(1), 10)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("creating log file \"%s\": %w", temp, errors.Unwrap(err))
	}
	w := &logWriter{file: f, encoders: &s.logs.encoders}
	_, err = io.Copy(w, r)
	if err = errors.Join(err, w.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("add build log: %w", err), os.Remove(temp))
	}
	return nil
}

// BuildLogPath gives the file that holds the log of a derivation's build, and whether there is one: compressed or
// not, in today's layout or in the flat one of old releases (libstore/local-fs-store.cc, getBuildLogExact).
func (s *Store) BuildLogPath(drv storepath.Path) (string, bool) {
	flat := filepath.Join(s.opts.LogDir, logsName, drv.Base())
	for _, path := range []string{s.buildLog(drv), flat} {
		for _, suffix := range []string{"", compressedSuffix} {
			if _, err := os.Stat(path + suffix); err == nil {
				return path + suffix, true
			}
		}
	}
	return "", false
}

// OpenBuildLog opens the log of a derivation's build for reading, decompressed. It fails with [fs.ErrNotExist] if
// there is none.
func (s *Store) OpenBuildLog(drv storepath.Path) (io.ReadCloser, error) {
	path, ok := s.BuildLogPath(drv)
	if !ok {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(path)
	if err != nil || filepath.Ext(path) != compressedSuffix {
		return f, err
	}
	z, err := compression.NewReader(logCompression, f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read '%s': %w", path, err), f.Close())
	}
	return &logReader{z, f}, nil
}

type logReader struct {
	io.ReadCloser
	file *os.File
}

func (r *logReader) Close() error { return errors.Join(r.ReadCloser.Close(), r.file.Close()) }

const (
	logCompression = "bzip2"

	// smallLog is how much of a log is gathered before the compressor is chosen: the block size of its lowest level.
	smallLog = 100_000 - 100

	// longLog is the level for logs beyond: an encoder takes 20 times its block size, which is 100,000 bytes for each
	// level. At the usual 9 that would be 18 MB for each of the builds that run; text is a seventh larger at 3.
	longLog = 3
)

// logWriter compresses a log. It gathers the beginning, since most logs are short and need only a small compressor.
type logWriter struct {
	file     *os.File
	encoders *compression.Encoders
	head     []byte
	z        io.WriteCloser // for a long log
	err      error
}

func (w *logWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.z == nil {
		if len(w.head)+len(p) <= smallLog {
			w.head = append(w.head, p...)
			return len(p), nil
		}
		if w.compress(longLog); w.err != nil {
			return 0, w.err
		}
	}
	n, err := w.z.Write(p)
	w.err = err
	return n, err
}

// compress begins the file with what was gathered.
func (w *logWriter) compress(level int) {
	if w.z, w.err = w.encoders.NewWriter(logCompression, level, false, w.file); w.err == nil {
		_, w.err = w.z.Write(w.head)
	}
	w.head = nil
}

// Close completes the file.
func (w *logWriter) Close() error {
	if w.z == nil && w.err == nil {
		w.compress(1)
	}
	if w.z != nil {
		if err := w.z.Close(); w.err == nil {
			w.err = err
		}
		w.z = nil
	}
	err := errors.Join(w.err, w.file.Close())
	w.err = fs.ErrClosed
	return err
}
