package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/compression"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// benchKey signs what the cache has, so that daemons check signatures as usual.
func benchKey() string {
	seed := bytes.Repeat([]byte{42}, ed25519.SeedSize)
	return "bench-1:" + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed))
}

// cache is a binary cache in memory, served over HTTP by this process.
type cache struct {
	objects map[string][]byte
	paths   []storepath.Path
	delay   time.Duration // added to each request

	tls         bool
	certificate string // a file, for who must trust the server; "" without TLS
	url         string
}

func (b *bench) cache() *cache { return b.state.(*cache) }

// ServeHTTP answers one request.
func (c *cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.delay > 0 {
		time.Sleep(c.delay)
	}
	data, ok := c.objects[strings.TrimPrefix(r.URL.Path, "/")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Write(data)
}

// listen starts the server; it ends with the process. Over TLS it speaks HTTP/2.
func (c *cache) listen() error {
	server := httptest.NewUnstartedServer(c)
	if !c.tls {
		server.Start()
		c.url = server.URL
		return nil
	}
	server.EnableHTTP2 = true
	server.StartTLS()
	c.url = server.URL
	f, err := os.CreateTemp("", "bench-*.crt")
	if err != nil {
		return err
	}
	c.certificate = f.Name()
	return errors.Join(pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), f.Chmod(0o644), f.Close())
}

// serving makes a cache of so many paths with one file of so many bytes each.
func serving(count int, size int64, method string, delay time.Duration, tls bool) func(*bench) error {
	return func(b *bench) error {
		c := &cache{objects: make(map[string][]byte), delay: delay, tls: tls}
		b.state = c
		dir := storepath.Dir(b.storeDir())
		c.objects["nix-cache-info"] = []byte("StoreDir: " + string(dir) + "\nWantMassQuery: 1\nPriority: 40\n")
		key, err := pathinfo.ParseSecretKey(benchKey())
		if err != nil {
			return err
		}
		if size > 1<<20 {
			size /= int64(b.scale)
		} else {
			count = b.n(count)
		}
		for i := range count {
			if err := c.add(dir, key, fmt.Sprintf("path-%d", i), prose(size, i), method); err != nil {
				return err
			}
		}
		return c.listen()
	}
}

// prose gives text that compresses about as well as programs do.
func prose(size int64, seed int) []byte {
	x := uint64(seed)*2654435761 + 88172645463325252
	words := make([]string, 256)
	next := func() uint64 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		return x
	}
	for i := range words {
		words[i] = fmt.Sprintf("%x ", next()>>(next()%48))
	}
	var out bytes.Buffer
	for int64(out.Len()) < size {
		out.WriteString(words[next()%256])
	}
	return out.Bytes()[:size&^7]
}

func (c *cache) add(dir storepath.Dir, key pathinfo.SecretKey, name string, contents []byte, method string) error {
	var archive, file bytes.Buffer
	w := nar.NewWriter(&archive)
	z, err := compression.NewWriter(method, -1, false, &file)
	if err == nil {
		err = errors.Join(w.Regular("", false, uint64(len(contents)), bytes.NewReader(contents)), w.Close())
	}
	if err == nil {
		_, err = z.Write(archive.Bytes())
		err = errors.Join(err, z.Close())
	}
	if err != nil {
		return err
	}
	p, info, err := infoOf(dir, name, archive.Bytes())
	if err != nil {
		return err
	}
	if err := info.Sign(dir, key); err != nil {
		return err
	}
	n := narinfo.NarInfo{Info: *info, URL: "nar/" + p.HashPart() + ".nar", Compression: method,
		FileHash: nixhash.Of(nixhash.SHA256, file.String()), FileSize: uint64(file.Len())}
	c.objects[n.URL] = file.Bytes()
	c.objects[p.HashPart()+".narinfo"] = []byte(n.Format(dir))
	c.paths = append(c.paths, p)
	return nil
}

func infoOf(dir storepath.Dir, name string, archive []byte) (storepath.Path, *pathinfo.Info, error) {
	p, err := dir.MakePath("output:out", nixhash.Of(nixhash.SHA256, name), name)
	if err != nil {
		return p, nil, err
	}
	running := nixhash.SHA256.New()
	size, err := io.Copy(running, bytes.NewReader(archive))
	return p, &pathinfo.Info{Path: p, NarHash: nixhash.FromSum(nixhash.SHA256, running), NarSize: uint64(size)}, err
}

// substituting is a client that takes from the cache.
func (b *bench) substituting() (*client.Client, error) {
	key, err := pathinfo.ParseSecretKey(benchKey())
	if err != nil {
		return nil, err
	}
	o := b.options()
	o.MaxConns = 1
	o.Settings = &protocol.ClientOptions{MaxJobs: 1, Cores: 1, BuildVerbosity: 7, Substitute: true, Overrides: []protocol.Override{
		{Name: "substituters", Value: b.cache().url}, {Name: "trusted-public-keys", Value: key.Public().String()},
	}}
	if file := b.cache().certificate; file != "" {
		o.Settings.Overrides = append(o.Settings.Overrides, protocol.Override{Name: "ssl-cert-file", Value: file})
	}
	return client.New(o), nil
}

func (b *bench) cached() []derivation.DerivedPath {
	var paths []derivation.DerivedPath
	for _, p := range b.cache().paths {
		paths = append(paths, derivation.DerivedPath{Path: p})
	}
	return paths
}

// missing asks what of the cache is missing, which is all.
func (b *bench) missing(c *client.Client) ([]derivation.DerivedPath, error) {
	paths := b.cached()
	m, err := c.QueryMissing(b.ctx, paths)
	if err == nil && len(m.WillSubstitute) != len(paths) {
		err = fmt.Errorf("%d of %d paths would be substituted", len(m.WillSubstitute), len(paths))
	}
	return paths, err
}

// substitutePaths takes everything, as a client does: it asks what is missing, then for all of it.
func substitutePaths(b *bench) (float64, error) {
	c, err := b.substituting()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	paths, err := b.missing(c)
	if err != nil {
		return 0, err
	}
	return float64(len(paths)), c.BuildPaths(b.ctx, paths, derivation.BuildNormal)
}

// substituteBig takes one large path; its operations are bytes.
func substituteBig(b *bench) (float64, error) {
	_, err := substitutePaths(b)
	return float64(bigSubstitute / b.scale), err
}

const bigSubstitute = 200 << 20

// missingPaths asks what of the cache is missing.
func missingPaths(b *bench) (float64, error) {
	c, err := b.substituting()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	paths, err := b.missing(c)
	return float64(len(paths)), err
}

// substitutions are the rows about binary caches.
func substitutions() []workload {
	const added = 20 * time.Millisecond
	return []workload{
		{name: "substitute 1,000 paths of 20 KB, plain", unit: "/s", prepare: serving(1000, 20<<10, "none", 0, false), run: substitutePaths},
		{name: "substitute 1,000 paths of 20 KB, xz", unit: "/s", prepare: serving(1000, 20<<10, "xz", 0, false), run: substitutePaths},
		{name: "substitute 1,000 paths of 20 KB, zstd", unit: "/s", prepare: serving(1000, 20<<10, "zstd", 0, false), run: substitutePaths},
		{name: "substitute one path of 200 MB, xz", unit: "MB/s", prepare: serving(1, bigSubstitute, "xz", 0, false), run: substituteBig, read: megabytes},
		{name: "substitute one path of 200 MB, zstd", unit: "MB/s", prepare: serving(1, bigSubstitute, "zstd", 0, false), run: substituteBig, read: megabytes},
		{name: "substitute 300 paths, 20 ms added", unit: "/s", prepare: serving(300, 20<<10, "zstd", added, false), run: substitutePaths},
		{name: "the same over HTTP/2", unit: "/s", prepare: serving(300, 20<<10, "zstd", added, true), run: substitutePaths},
		{name: "missing among 1,000 paths, 20 ms added", unit: "s", lessIsBetter: true, prepare: serving(1000, 2<<10, "none", added, false), run: missingPaths, read: seconds},
		{name: "the same over HTTP/2, missing", unit: "s", lessIsBetter: true, prepare: serving(1000, 2<<10, "none", added, true), run: missingPaths, read: seconds},
	}
}
