package s3

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"nixdaemon/protocol/activity"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/transfer"
)

const (
	minPart  = 5 << 20 // bytes, the least and the most that S3 takes as a part, or as an object that has none
	maxPart  = 5 << 30
	maxParts = 10000
)

// Store is a binary cache in a bucket. It is [transfer.Objects].
type Store struct {
	engine       *transfer.Engine
	chain        *Chain
	where        Location // its key is the prefix of all names
	uri          string   // for messages
	multipart    bool
	chunk        int64
	threshold    int64
	storageClass string

	warned, warnedOfDot sync.Once
}

var _ transfer.Objects = (*Store)(nil)

// New names the cache at an s3:// URL, without parameters; these are in params, where others are ignored: profile,
// region, scheme, endpoint, addressing-style, multipart-upload, multipart-chunk-size (or buffer-size),
// multipart-threshold and storage-class.
func New(e *transfer.Engine, chain *Chain, cache string, params map[string]string) (*Store, error) {
	u, err := url.Parse(cache)
	if err != nil || u.Scheme != "s3" {
		return nil, fmt.Errorf("'%s' is not a valid URL", cache)
	}
	query := make(url.Values)
	for name, value := range params {
		query.Set(name, value)
	}
	query.Del("versionId")
	s := &Store{engine: e, chain: chain, chunk: minPart, threshold: 100 << 20, storageClass: params["storage-class"]}
	if style := params["addressing-style"]; style != "" && style != "auto" && style != "path" && style != "virtual" {
		return nil, fmt.Errorf("option 'addressing-style' has invalid value '%s', expected 'auto', 'path', or 'virtual'", style)
	}
	where, err := parse(u, query)
	if err != nil {
		return nil, err
	}
	s.where = *where
	s.where.Key = strings.TrimRight(where.Key, "/")
	s.uri = s.humanURI(params)
	return s, s.setUploads(params)
}

// humanURI is the cache with those parameters that make a difference to where it is, as upstream shows it.
func (s *Store) humanURI(params map[string]string) string {
	ref := settings.StoreReference{Kind: settings.ReferenceURL, Scheme: "s3", Authority: s.where.Bucket}
	if s.where.Key != "" {
		ref.Authority += "/" + s.where.Key
	}
	for _, name := range []string{"addressing-style", "endpoint", "profile", "region", "scheme"} {
		if value, ok := params[name]; ok {
			ref.Params = append(ref.Params, settings.Param{Name: name, Value: value})
		}
	}
	return ref.String()
}

func (s *Store) setUploads(params map[string]string) error {
	s.multipart = params["multipart-upload"] == "true" || params["multipart-upload"] == "1"
	size := params["multipart-chunk-size"]
	if size == "" {
		size = params["buffer-size"]
	}
	for _, option := range []struct {
		name, value string
		to          *int64
	}{{"multipart-chunk-size", size, &s.chunk}, {"multipart-threshold", params["multipart-threshold"], &s.threshold}} {
		if option.value == "" {
			continue
		}
		n, err := strconv.ParseInt(option.value, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("setting '%s' has invalid value '%s'", option.name, option.value)
		}
		*option.to = n
	}
	if s.chunk < minPart {
		return fmt.Errorf("multipart-chunk-size must be at least %s, got %s", renderSize(minPart), renderSize(s.chunk))
	}
	if s.chunk > maxPart {
		return fmt.Errorf("multipart-chunk-size must be at most %s, got %s", renderSize(maxPart), renderSize(s.chunk))
	}
	return nil
}

// renderSize writes a size as upstream's function of that name does.
func renderSize(n int64) string {
	const units = "KMGTPEZY"
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[unit])
}

// String is the cache's URI as it is shown, with the parameters that say where it is.
func (s *Store) String() string { return s.uri }

// request makes one for a name; query is added to the URL's.
func (s *Store) request(ctx context.Context, method, name string, query url.Values, c *transfer.Call) (*transfer.Request, error) {
	r := &transfer.Request{Method: method, ExpectedETag: c.ExpectedETag, Log: c.Log, IDs: c.IDs, Parent: c.Parent, Header: make(http.Header)}
	if strings.HasPrefix(name, "https://") || strings.HasPrefix(name, "http://") {
		r.URL = name // elsewhere, where nobody needs our keys
		return r, nil
	}
	l := s.where
	object, parameters, _ := strings.Cut(name, "?")
	if unescaped, err := url.PathUnescape(object); err == nil {
		object = unescaped
	}
	l.Key = strings.TrimPrefix(l.Key+"/"+object, "/")
	if q, err := url.ParseQuery(parameters); err == nil {
		l.VersionID = q.Get("versionId")
	}
	u, err := l.HTTPS()
	if err != nil {
		return nil, err
	}
	if l.dotted() {
		s.warnedOfDot.Do(func() { warn(c, dottedText(l.Bucket)) })
	}
	if len(query) > 0 {
		u.RawQuery = query.Encode()
	}
	r.URL = u.String()
	keys, err := s.chain.Keys(ctx, l.Profile)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		s.warn(&l, err, c)
		return r, nil
	}
	r.Sign = func(req *http.Request) error { return keys.Sign(l.SigningRegion(), req) }
	return r, nil
}

// warn tells once that requests are not signed.
func (s *Store) warn(l *Location, err error, c *transfer.Call) {
	s.warned.Do(func() { warn(c, Warning(l, err)) })
}

func warn(c *transfer.Call, text string) {
	if c.Log != nil {
		c.Log.Message(activity.Warn, "\x1b[35;1mwarning:\x1b[0m "+text)
	}
}

// Get opens an object.
func (s *Store) Get(ctx context.Context, name string, c transfer.Call) (*transfer.Response, error) {
	r, err := s.request(ctx, http.MethodGet, name, nil, &c)
	if err != nil {
		return nil, err
	}
	resp, err := s.engine.Do(ctx, c.Settings, r)
	if err != nil {
		return nil, transfer.Missing(err, name, s.uri)
	}
	return resp, nil
}

// Exists tells whether there is an object.
func (s *Store) Exists(ctx context.Context, name string, c transfer.Call) (bool, error) {
	r, err := s.request(ctx, http.MethodHead, name, nil, &c)
	if err != nil {
		return false, err
	}
	resp, err := s.engine.Do(ctx, c.Settings, r)
	switch {
	case errors.Is(err, transfer.ErrNotFound), errors.Is(err, transfer.ErrForbidden):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, resp.Body.Close()
}

// Put makes or replaces an object.
func (s *Store) Put(ctx context.Context, name string, body func() (io.ReadCloser, int64, error), contentType, contentEncoding string, c transfer.Call) error {
	err := s.put(ctx, name, body, contentType, contentEncoding, &c)
	if _, ok := errors.AsType[*transfer.Error](err); ok {
		return transfer.Trace(err, "while uploading to S3 binary cache at '"+s.uri+"'")
	}
	return err
}

func (s *Store) put(ctx context.Context, name string, body func() (io.ReadCloser, int64, error), contentType, contentEncoding string, c *transfer.Call) error {
	sum, size, err := digest(name, body)
	if err != nil {
		return err
	}
	header := make(http.Header)
	if contentEncoding != "" {
		header.Set("Content-Encoding", contentEncoding)
	}
	if s.storageClass != "" {
		header.Set("X-Amz-Storage-Class", s.storageClass)
	}
	if s.multipart && size > s.threshold {
		u := &upload{store: s, call: c, name: name, body: body, size: size, header: header, contentType: contentType}
		return u.run(ctx)
	}
	if size > maxPart {
		return fmt.Errorf("file too large for S3 upload without multipart: %s would exceed maximum size of %s. "+
			"Consider enabling multipart-upload.", renderSize(size), renderSize(maxPart))
	}
	header.Set("Content-Md5", sum)
	r, err := s.request(ctx, http.MethodPut, name, nil, c)
	if err != nil {
		return err
	}
	r.Header, r.Body, r.ContentType = header, body, contentType
	_, err = s.do(ctx, r, c)
	return err
}

// digest reads what is to be sent once, for the checksum that S3 compares (RFC 1864).
func digest(name string, body func() (io.ReadCloser, int64, error)) (sum string, size int64, err error) {
	r, size, err := body()
	if err != nil {
		return "", 0, err
	}
	h := md5.New()
	n, err := io.Copy(h, r)
	if err = errors.Join(err, r.Close()); err != nil {
		return "", 0, err
	}
	if n != size {
		return "", 0, fmt.Errorf("unexpected size for upload '%s', expected %d, got: %d", name, size, n)
	}
	return base64.StdEncoding.EncodeToString(h.Sum(nil)), size, nil
}

// maxReply bounds the answers of S3 that are read.
const maxReply = 1 << 20

// do carries out a request whose answer is short.
func (s *Store) do(ctx context.Context, r *transfer.Request, c *transfer.Call) (*reply, error) {
	resp, err := s.engine.Do(ctx, c.Settings, r)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	return &reply{etag: resp.ETag, text: string(text)}, nil
}

type reply struct{ etag, text string }
