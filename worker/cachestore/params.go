package cachestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"nixdaemon/protocol/compression"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/worker/settings"
)

// params are the parameters of a reference that say how a cache is written.
type params struct {
	compression string
	level       int
	parallel    bool
	listing     bool
	debugInfo   bool
	narCache    string // a directory, "" for none
	keyFiles    []string
	keys        []pathinfo.SecretKey // of these files, once they were read
	// encodings of what is uploaded over HTTP, "" for none
	narinfoEncoding, listingEncoding, logEncoding string
}

// methods are all that upstream knows (libutil/compression-algo.hh).
var methods = []string{"none", "br", "bzip2", "compress", "grzip", "gzip", "lrzip", "lz4", "lzip", "lzma", "lzop", "xz", "zstd"}

// suffixes of archives; other methods have none.
var suffixes = map[string]string{"xz": ".xz", "bzip2": ".bz2", "zstd": ".zst", "lzip": ".lzip", "lz4": ".lz4", "br": ".br"}

// Check finds out whether the parameters of a reference make sense. The keys that it names are not looked at.
func Check(ref settings.StoreReference) error {
	_, err := parseParams(ref)
	return err
}

// CheckKeys is Check, and reads the keys, too: upstream opens no cache without them, not even to read from it
// (libstore/binary-cache-store.cc).
func CheckKeys(ref settings.StoreReference) error {
	p, err := parseParams(ref)
	if err != nil {
		return err
	}
	return p.readKeys()
}

func parseParams(ref settings.StoreReference) (params, error) {
	p := params{compression: "xz", level: compression.DefaultLevel}
	for _, param := range ref.Params {
		if err := p.set(param.Name, param.Value); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *params) set(name, value string) (err error) {
	switch name {
	case "compression":
		p.compression, err = method(name, value)
	case "compression-level":
		p.level, err = strconv.Atoi(value)
		if err != nil {
			err = badValue(name, value)
		}
	case "parallel-compression":
		p.parallel, err = settings.ParseBool(name, value)
	case "write-nar-listing":
		p.listing, err = settings.ParseBool(name, value)
	case "index-debug-info":
		p.debugInfo, err = settings.ParseBool(name, value)
	case "local-nar-cache":
		if value != "" {
			p.narCache, err = settings.ParseAbsPath(name, value)
		}
	case "secret-key":
		if value != "" {
			p.keyFiles = append([]string{value}, p.keyFiles...)
		}
	case "secret-keys":
		for file := range strings.SplitSeq(value, ",") {
			if file != "" {
				p.keyFiles = append(p.keyFiles, file)
			}
		}
	case "narinfo-compression":
		p.narinfoEncoding, err = encoding(name, value)
	case "ls-compression":
		p.listingEncoding, err = encoding(name, value)
	case "log-compression":
		p.logEncoding, err = encoding(name, value)
	}
	return err
}

func badValue(name, value string) error {
	return &settings.UsageError{Msg: fmt.Sprintf("setting '%s' has invalid value '%s'", name, value)}
}

func method(name, value string) (string, error) {
	if value == "brotli" {
		value = "br"
	}
	if !slices.Contains(methods, value) {
		return "", &settings.UsageError{Msg: fmt.Sprintf("option '%s' has invalid value '%s'", name, value)}
	}
	return value, nil
}

// encoding is a method, or nothing.
func encoding(name, value string) (string, error) {
	if value == "" {
		return "", nil
	}
	return method(name, value)
}

func (p *params) readKeys() error {
	for _, file := range p.keyFiles {
		if err := p.readKey(file); err != nil {
			return err
		}
	}
	return nil
}

func (p *params) readKey(file string) error {
	text, err := os.ReadFile(file)
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		cause := pathErr.Err.Error() // the C library begins with a large letter
		return fmt.Errorf("opening file %s: %s", settings.QuotePath(file), strings.ToUpper(cause[:1])+cause[1:])
	}
	if err != nil {
		return err
	}
	key, err := pathinfo.ParseSecretKey(strings.TrimRight(string(text), "\n"))
	if err != nil {
		return err
	}
	p.keys = append(p.keys, key)
	return nil
}
