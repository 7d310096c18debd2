package s3

import (
	"fmt"
	"net/url"
	"strings"
)

// Location is an object, or a prefix of the names of objects.
type Location struct {
	Bucket string
	// Key is the object's name, without a slash before it.
	Key string
	// Profile, Region, Scheme, Endpoint, AddressingStyle and VersionID are the URL's parameters; "" means the default:
	// the default profile, us-east-1, https, Amazon, auto, the newest version.
	Profile, Region, Scheme, Endpoint, AddressingStyle, VersionID string
}

// badURL is an error of a URL, with the context line that upstream gives it.
type badURL struct{ text, url string }

func (b *badURL) Error() string    { return b.text }
func (b *badURL) Traces() []string { return []string{"while parsing S3 URI: '" + b.url + "'"} }

// Parse takes an s3:// URL of an object apart.
func Parse(text string) (*Location, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "s3" {
		scheme, _, _ := strings.Cut(text, ":")
		return nil, &badURL{fmt.Sprintf("URI scheme '%s' is not 's3'", scheme), text}
	}
	l, err := parse(u, u.Query())
	if err != nil {
		return nil, err
	}
	if l.Key == "" {
		return nil, &badURL{"URI has a missing or invalid key", text}
	}
	return l, nil
}

func parse(u *url.URL, query url.Values) (*Location, error) {
	if u.Hostname() == "" || strings.Contains(u.Host, "[") {
		return nil, &badURL{"URI has a missing or invalid bucket name", u.String()}
	}
	l := &Location{Bucket: u.Hostname(), Key: strings.TrimPrefix(u.Path, "/")}
	l.set(query)
	if _, err := l.style(); err != nil {
		return nil, &badURL{err.Error(), u.String()}
	}
	return l, nil
}

func (l *Location) set(query url.Values) {
	for name, field := range map[string]*string{"profile": &l.Profile, "region": &l.Region, "scheme": &l.Scheme,
		"endpoint": &l.Endpoint, "addressing-style": &l.AddressingStyle, "versionId": &l.VersionID} {
		if query.Has(name) {
			*field = query.Get(name)
		}
	}
}

// style says how the bucket is named in a URL: in the path, in the host, or as is usual.
func (l *Location) style() (string, error) {
	switch l.AddressingStyle {
	case "":
		return "auto", nil
	case "auto", "path", "virtual":
		return l.AddressingStyle, nil
	}
	return "", fmt.Errorf("unknown S3 addressing style '%s', expected 'auto', 'path', or 'virtual'", l.AddressingStyle)
}

// SigningRegion is the region that signatures are for.
func (l *Location) SigningRegion() string {
	if l.Region == "" {
		return "us-east-1"
	}
	return l.Region
}

// HTTPS is where the object is on the web.
func (l *Location) HTTPS() (*url.URL, error) {
	base, amazon, err := l.endpoint()
	if err != nil {
		return nil, err
	}
	inHost, err := l.bucketInHost(base, amazon)
	if err != nil {
		return nil, err
	}
	path := strings.TrimRight(base.Path, "/") + "/"
	if inHost {
		base.Host = l.Bucket + "." + base.Host
	} else {
		path += l.Bucket + "/"
	}
	base.Path = path + l.Key
	base.RawPath = escapePath(base.Path)
	if l.VersionID != "" {
		base.RawQuery = url.Values{"versionId": {l.VersionID}}.Encode()
	}
	return base, nil
}

// endpoint is the server: Amazon's for the region, a host, or a whole URL.
func (l *Location) endpoint() (u *url.URL, amazon bool, err error) {
	scheme := l.Scheme
	if scheme == "" {
		scheme = "https"
	}
	switch {
	case l.Endpoint == "":
		return &url.URL{Scheme: scheme, Host: "s3." + l.SigningRegion() + ".amazonaws.com"}, true, nil
	case strings.Contains(l.Endpoint, "://"):
		u, err = url.Parse(l.Endpoint)
	default:
		u, err = url.Parse(scheme + "://" + l.Endpoint)
		if err == nil && u.Path != "" {
			err = fmt.Errorf("'%s' is not a valid authority", l.Endpoint)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("'%s' is not a valid URL: %w", l.Endpoint, err)
	}
	u.RawQuery, u.Fragment = "", ""
	return u, false, nil
}

// bucketInHost tells whether the bucket is named in the host. A dot in its name would make certificates not fit.
func (l *Location) bucketInHost(base *url.URL, amazon bool) (bool, error) {
	style, err := l.style()
	if err != nil {
		return false, err
	}
	virtual := style == "virtual" || style == "auto" && amazon
	switch {
	case virtual && strings.Contains(l.Bucket, ".") && style == "virtual":
		return false, fmt.Errorf("bucket name '%s' contains a dot, which is incompatible with virtual-hosted-style addressing "+
			"(causes TLS certificate errors); use 'addressing-style=path' or 'addressing-style=auto' instead", l.Bucket)
	case virtual && strings.Contains(l.Bucket, "."):
		return false, nil
	case virtual && base.Hostname() == "":
		return false, fmt.Errorf("cannot use virtual-hosted-style addressing with endpoint '%s' "+
			"because it has no hostname; use 'addressing-style=path' instead", l.Endpoint)
	}
	return virtual, nil
}

// dotted tells whether the bucket would be named in the host if it had no dot.
func (l *Location) dotted() bool {
	return l.Endpoint == "" && (l.AddressingStyle == "" || l.AddressingStyle == "auto") && strings.Contains(l.Bucket, ".")
}

// dottedText warns of that (libstore/s3-url.cc, toHttpsUrl).
func dottedText(bucket string) string {
	return fmt.Sprintf("bucket name '%s' contains a dot; falling back to path-style addressing (virtual-hosted-style requires "+
		"non-dotted bucket names for TLS certificate validity); set 'addressing-style=path' to silence this warning", bucket)
}

// escapePath escapes as signatures want it: everything but unreserved characters and slashes.
func escapePath(path string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
