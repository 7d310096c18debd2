package transfer

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// proxies chooses the proxy for a URL by the environment, as libcurl does: <scheme>_proxy, else all_proxy, unless
// no_proxy names the host. Upper case is accepted too, except for HTTP_PROXY, which in CGI programs is somebody else's.
type proxies struct {
	getenv func(name string) string
}

// find gives nil for none.
func (p proxies) find(u *url.URL) (*url.URL, error) {
	proxy := p.getenv(u.Scheme + "_proxy")
	if proxy == "" && u.Scheme != "http" {
		proxy = p.either(u.Scheme + "_proxy")
	}
	if proxy == "" {
		proxy = p.either("all_proxy")
	}
	if proxy == "" || excepted(p.either("no_proxy"), u.Hostname()) {
		return nil, nil
	}
	if !strings.Contains(proxy, "://") {
		proxy = "http://" + proxy
	}
	return url.Parse(proxy)
}

func (p proxies) either(name string) string {
	if value := p.getenv(name); value != "" {
		return value
	}
	return p.getenv(strings.ToUpper(name))
}

// excepted tells whether a list of domains and networks contains a host.
func excepted(list, host string) bool {
	if list == "*" {
		return true
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	addr, addrErr := netip.ParseAddr(host)
	for _, item := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		item = strings.Trim(strings.ToLower(item), ".")
		if addrErr == nil {
			if prefix, err := netip.ParsePrefix(item); err == nil && prefix.Contains(addr) {
				return true
			}
			item = strings.Trim(item, "[]")
		}
		if item != "" && (host == item || addrErr != nil && strings.HasSuffix(host, "."+item)) {
			return true
		}
	}
	return false
}

// hostPort is the address of a URL's server.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}
