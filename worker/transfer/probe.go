package transfer

import (
	"crypto/tls"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"time"
)

// protocolProbe is what is known of a server's HTTP/2. While the first request to it has no connection the others wait:
// they may share that one (libcurl, CURLOPT_PIPEWAIT).
type protocolProbe struct {
	once  sync.Once
	known chan struct{} // closed when the others need not wait any more
	http2 bool          // to be read after known
	at    time.Time     // guarded by the engine
}

// maxProbes bounds how many servers are remembered.
const maxProbes = 256

// probe gives what is known about a server, and whether the caller is the one to find out.
func (e *Engine) probe(server string) (p *protocolProbe, first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p = e.probes[server]; p != nil {
		p.at = time.Now()
		return p, false
	}
	if len(e.probes) >= maxProbes {
		e.forgetLocked()
	}
	p = &protocolProbe{known: make(chan struct{}), at: time.Now()}
	e.probes[server] = p
	return p, true
}

func (e *Engine) forgetLocked() {
	servers := make([]string, 0, len(e.probes))
	for server := range e.probes {
		servers = append(servers, server)
	}
	slices.SortFunc(servers, func(a, b string) int { return e.probes[a].at.Compare(e.probes[b].at) })
	for _, server := range servers[:len(servers)/2] {
		delete(e.probes, server)
	}
}

// learn is called with the first connection.
func (p *protocolProbe) learn(info httptrace.GotConnInfo) {
	p.once.Do(func() {
		if c, ok := info.Conn.(*tls.Conn); ok {
			p.http2 = c.ConnectionState().NegotiatedProtocol == "h2"
		}
		close(p.known)
	})
}

// abandon ends a probe. A server to which there was no connection is unknown still.
func (e *Engine) abandon(server string, p *protocolProbe) {
	p.once.Do(func() {
		e.mu.Lock()
		if e.probes[server] == p {
			delete(e.probes, server)
		}
		e.mu.Unlock()
		close(p.known)
	})
}

// speaksHTTP2 tells whether a server is known to.
func (e *Engine) speaksHTTP2(u *url.URL) bool {
	if u.Scheme != "https" {
		return false
	}
	e.mu.Lock()
	p := e.probes[u.Host]
	e.mu.Unlock()
	if p == nil {
		return false
	}
	select {
	case <-p.known:
		return p.http2
	default:
		return false
	}
}
