package transfer

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"nixdaemon/protocol/compression"
)

const (
	// maxHeader bounds the header of a response; libcurl has the same limit.
	maxHeader = 300 << 10
	// maxPools bounds how many kinds of connections are kept: there may be many clients with settings of their own.
	maxPools = 16
	// idleTime is how long a connection is kept that nobody uses.
	idleTime = 90 * time.Second
	// keepAlive is how often the peer's kernel is asked whether it is there; libcurl's default.
	keepAlive = time.Minute
	// fileTime is for how long files of settings are taken to be unchanged without a look.
	fileTime = time.Second
)

// Options are what an engine needs to know of its surroundings.
type Options struct {
	// Getenv looks up the variables that name proxies. Nil means [os.Getenv].
	Getenv func(name string) string
	// Pause waits before another attempt. Nil means to sleep.
	Pause func(ctx context.Context, d time.Duration) error
}

// Engine carries out requests. Its methods may be called from any goroutine.
type Engine struct {
	proxies  proxies
	pause    func(ctx context.Context, d time.Duration) error
	gate     gate
	decoders compression.Decoders

	mu     sync.Mutex
	pools  map[poolKey]*pool
	files  map[string]*cachedFile
	probes map[string]*protocolProbe // by host and port
}

// New makes an engine. It holds nothing before the first request.
func New(o Options) *Engine {
	e := &Engine{proxies: proxies{o.Getenv}, pause: o.Pause, pools: make(map[poolKey]*pool),
		files: make(map[string]*cachedFile), probes: make(map[string]*protocolProbe)}
	if o.Getenv == nil {
		e.proxies.getenv = os.Getenv
	}
	if e.pause == nil {
		e.pause = sleep
	}
	return e
}

// Close closes the connections that are not in use. Requests under way go on, and close theirs when they end.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, p := range e.pools {
		p.transport.CloseIdleConnections()
		delete(e.pools, key)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poolKey is all that connections must have in common to be shared.
type poolKey struct {
	connect          time.Duration
	tls, http2       bool
	bundle           string // contents of the bundle of certificates
	certificate, key string // contents
}

// pool is connections with equal settings.
type pool struct {
	transport *http.Transport
	used      time.Time // guarded by the engine
}

// pool finds the connections for requests to a scheme.
func (e *Engine) pool(scheme string, s *Settings, r *Request) (*pool, *fault) {
	key := poolKey{connect: s.ConnectTimeout, tls: scheme == "https"}
	if key.tls {
		key.http2 = s.HTTP2
		key.bundle = cmp.Or(s.CABundle, e.contents(s.CAFile))
		if r.TLSCertificate != "" {
			key.certificate = e.contents(r.TLSCertificate)
			key.key = e.contents(cmp.Or(r.TLSKey, r.TLSCertificate))
			if key.certificate == "" {
				return nil, badPair(r, "no such file or directory")
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p, ok := e.pools[key]; ok {
		p.used = time.Now()
		return p, nil
	}
	config, f := key.config(s, r)
	if f != nil {
		return nil, f
	}
	p := &pool{transport: e.transport(key, config), used: time.Now()}
	e.pools[key] = p
	if len(e.pools) > maxPools {
		e.evictLocked()
	}
	return p, nil
}

// evictLocked forgets the pool that was not used for longest. Its connections end with their requests, or by age.
func (e *Engine) evictLocked() {
	var oldest poolKey
	var since time.Time
	for key, p := range e.pools {
		if since.IsZero() || p.used.Before(since) {
			oldest, since = key, p.used
		}
	}
	e.pools[oldest].transport.CloseIdleConnections()
	delete(e.pools, oldest)
}

// config is nil without TLS.
func (k *poolKey) config(s *Settings, r *Request) (*tls.Config, *fault) {
	if !k.tls {
		return nil, nil
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	if !c.RootCAs.AppendCertsFromPEM([]byte(k.bundle)) {
		return nil, &fault{code: curlCACertBadFile, detail: "error adding trust anchors from file: " + cmp.Or(s.CAFile, "ca-certificates.crt")}
	}
	if r.TLSCertificate != "" {
		pair, err := tls.X509KeyPair([]byte(k.certificate), []byte(k.key))
		if err != nil {
			return nil, badPair(r, err.Error())
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// badPair is the fault of a client certificate.
func badPair(r *Request, why string) *fault {
	return &fault{code: curlCertProblem, detail: "could not load PEM client certificate from " + r.TLSCertificate + ", " + why +
		", (no key found, wrong passphrase, or wrong file format?)"}
}

func (e *Engine) transport(key poolKey, config *tls.Config) *http.Transport {
	t := &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return e.proxies.find(r.URL) },
		DialContext:            dialLocalhost((&net.Dialer{Timeout: key.connect, KeepAlive: keepAlive}).DialContext),
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    key.connect,
		ForceAttemptHTTP2:      key.http2,
		DisableCompression:     true, // encodings are decoded here
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    1 << 10, // the limit on requests is the limit on connections
		IdleConnTimeout:        idleTime,
		ExpectContinueTimeout:  time.Second,
		ReadBufferSize:         readBuffer,
		WriteBufferSize:        writeBuffer,
	}
	if !key.http2 {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return t
}

const (
	// readBuffer is each connection's. Contents are read past it when the reader's buffer is larger.
	readBuffer  = 16 << 10
	writeBuffer = 16 << 10
)

// cachedFile is a small file that settings name.
type cachedFile struct {
	looked time.Time
	info   os.FileInfo // nil if it cannot be read
	text   string
}

const (
	maxFile  = 16 << 20 // bytes of a file that settings name
	maxFiles = 64       // how many are remembered
)

// contents gives what is in a file, "" if it cannot be read.
func (e *Engine) contents(name string) string {
	if name == "" {
		return ""
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	f := e.files[name]
	if f != nil && now.Sub(f.looked) < fileTime {
		return f.text
	}
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxFile {
		info = nil
	}
	if f == nil {
		if len(e.files) >= maxFiles {
			clear(e.files)
		}
		f = new(cachedFile)
		e.files[name] = f
	}
	if !same(f.info, info) {
		f.text = ""
		if info != nil {
			text, _ := os.ReadFile(name) // like one that is not there
			f.text = string(text)
		}
	}
	f.info, f.looked = info, now
	return f.text
}

func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
