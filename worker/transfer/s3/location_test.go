package s3

import (
	"strings"
	"testing"
)

// The cases are those of upstream's own tests (libstore-tests/s3-url.cc), in other words.
func TestLocation(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"s3://bucket/key.txt", "https://bucket.s3.us-east-1.amazonaws.com/key.txt"},
		{"s3://bucket/a/b?region=eu-west-1", "https://bucket.s3.eu-west-1.amazonaws.com/a/b"},
		{"s3://bucket/k?addressing-style=path", "https://s3.us-east-1.amazonaws.com/bucket/k"},
		{"s3://bucket/k?endpoint=custom.s3.com", "https://custom.s3.com/bucket/k"},
		{"s3://bucket/k?endpoint=localhost:9000&scheme=http", "http://localhost:9000/bucket/k"},
		{"s3://bucket/k?endpoint=http://server:9000/prefix/", "http://server:9000/prefix/bucket/k"},
		{"s3://bucket/k?endpoint=http://server:9000&scheme=https&addressing-style=virtual", "http://bucket.server:9000/k"},
		{"s3://my.bucket/k", "https://s3.us-east-1.amazonaws.com/my.bucket/k"},
		{"s3://my.bucket/k?endpoint=minio.local", "https://minio.local/my.bucket/k"},
		{"s3://bucket/k?versionId=a.b%2Bc", "https://bucket.s3.us-east-1.amazonaws.com/k?versionId=a.b%2Bc"},
		{"s3://bucket/a%20b/c!d", "https://bucket.s3.us-east-1.amazonaws.com/a%20b/c%21d"},

		{"s3://bucket", "URI has a missing or invalid key"},
		{"s3://bucket/", "URI has a missing or invalid key"},
		{"s3:///key", "URI has a missing or invalid bucket name"},
		{"s3://[::1]/key", "URI has a missing or invalid bucket name"},
		{"https://bucket/key", "URI scheme 'https' is not 's3'"},
		{"s3://bucket/k?addressing-style=other", "unknown S3 addressing style 'other', expected 'auto', 'path', or 'virtual'"},
		{"s3://my.bucket/k?addressing-style=virtual", "bucket name 'my.bucket' contains a dot, which is incompatible with " +
			"virtual-hosted-style addressing (causes TLS certificate errors); use 'addressing-style=path' or 'addressing-style=auto' instead"},
	} {
		got := ""
		l, err := Parse(tt.url)
		if err == nil {
			u, e := l.HTTPS()
			if err = e; err == nil {
				got = u.String()
			}
		}
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.url, got, tt.want)
		}
	}
}

// TestDotted: a bucket is warned of that is not where people would look for it.
func TestDotted(t *testing.T) {
	for text, want := range map[string]bool{
		"s3://my.bucket/k": true, "s3://my.bucket/k?addressing-style=auto": true, "s3://bucket/k": false,
		"s3://my.bucket/k?addressing-style=path": false, "s3://my.bucket/k?endpoint=server": false,
	} {
		l, err := Parse(text)
		if err != nil || l.dotted() != want {
			t.Errorf("%s: %v, %v", text, l, err)
		}
	}
}

func FuzzLocation(f *testing.F) {
	for _, seed := range []string{"s3://bucket/key", "s3://b/k?endpoint=http://x/y&versionId=1", "s3://b.c/%2e%2e/x?addressing-style=path", "s3://b/k?endpoint=%00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse(text)
		if err != nil {
			return
		}
		u, err := l.HTTPS()
		if err != nil {
			return
		}
		if u.Host == "" && l.Endpoint == "" || !strings.HasSuffix(u.Path, l.Key) {
			t.Errorf("%q leads to %s", text, u)
		}
	})
}
