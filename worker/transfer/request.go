package transfer

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/activity"
)

// Request is what to do.
type Request struct {
	// Method is GET if empty. The others are HEAD, PUT, POST and DELETE.
	Method string
	// URL is where; user and password in it are sent but not shown.
	URL string
	// Header has more fields to send, to no other host than URL's.
	Header http.Header
	// Body opens what to send, for each attempt anew, and tells its size in bytes. Nil sends nothing.
	Body func() (io.ReadCloser, int64, error)
	// ContentType is that of Body.
	ContentType string
	// ExpectedETag is that of contents which the caller has: if it is still theirs, the response is Cached.
	ExpectedETag string
	// Username and Password are for basic authentication, instead of those of the URL or the netrc file.
	Username, Password string
	// Sign, if not nil, is called last with each request to the URL's own host.
	Sign func(*http.Request) error
	// TLSCertificate and TLSKey are PEM files by which this side proves who it is. The key may be in the certificate's.
	TLSCertificate, TLSKey string
	// Attempts, if not 0, is used instead of the settings'.
	Attempts uint
	// Restart is called before contents that have been read in part come again from their beginning. If it is nil they
	// come only once.
	Restart func() error
	// Files allows a URL of the scheme file.
	Files bool

	// Log hears of the transfer as an activity below Parent with a number from IDs, and of attempts that are made again.
	// Nil for nobody; then IDs is not needed.
	Log    activity.Sink
	IDs    *activity.IDs
	Parent activity.ID
}

// verb says what the request does: "download", and so on.
func (r *Request) verb() string {
	switch r.Method {
	case http.MethodPut, http.MethodPost:
		return "upload"
	case http.MethodDelete:
		return "delete"
	}
	return "download"
}

// noun and doing are other forms of the verb.
func (r *Request) noun() string {
	if r.Method == http.MethodDelete {
		return "deletion"
	}
	return r.verb()
}

func (r *Request) doing() string {
	if r.Method == http.MethodDelete {
		return "deleting"
	}
	return r.verb() + "ing"
}

var badEscape = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)`) })

// parseURL takes what libcurl would: a percent sign may also stand for itself.
func parseURL(text string) (*url.URL, *fault) {
	u, err := url.Parse(text)
	if err != nil {
		u, err = url.Parse(badEscape().ReplaceAllString(text, "%25$1"))
	}
	if err != nil {
		return nil, &fault{code: curlURLMalformat, detail: "URL rejected: Malformed input to a URL function"}
	}
	if (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() == "" {
		return nil, &fault{code: curlURLMalformat, detail: "URL rejected: No host present"}
	}
	return u, nil
}

var userinfo = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@`) })

// Shown is a URL as it may be shown: without user and password.
func Shown(url string) string {
	if !strings.Contains(url, "@") {
		return url
	}
	return userinfo().ReplaceAllString(url, "$1")
}

// openFile opens a file:// URL.
func openFile(u *url.URL) (*os.File, int64, *fault) {
	if u.Host != "" && u.Host != "localhost" && u.Host != "127.0.0.1" {
		return nil, 0, &fault{code: curlURLMalformat, detail: "URL rejected: Bad file:// URL"}
	}
	unreadable := &fault{code: curlCouldntReadFile, detail: "Could not open file " + u.Path}
	f, err := os.OpenFile(u.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, unreadable
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.ErrUnsupported
	}
	if err != nil {
		f.Close()
		return nil, 0, unreadable
	}
	return f, info.Size(), nil
}
