package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"nixdaemon/worker/transfer"
)

// upload sends one object in parts.
type upload struct {
	store       *Store
	call        *transfer.Call
	name        string
	body        func() (io.ReadCloser, int64, error)
	size        int64
	header      http.Header
	contentType string

	chunk int64
	id    string
	etags []string
	at    int64         // how far now has been read
	now   io.ReadCloser // nil if it has to be opened
}

// abortTimeout bounds the attempt to take an upload back whose own context may have ended.
const abortTimeout = 30 * time.Second

// abortPause is what a part under way gets before the next of abortTries attempts, and each time twice as much.
const (
	abortPause = 20 * time.Millisecond
	abortTries = 4
)

func (u *upload) run(ctx context.Context) (err error) {
	if err := u.setChunk(); err != nil {
		return err
	}
	if err := u.create(ctx); err != nil {
		return err
	}
	defer func() {
		if u.now != nil {
			err = errors.Join(err, u.now.Close())
		}
		if err != nil {
			u.abort(ctx)
		}
	}()
	for offset := int64(0); offset < u.size; offset += u.chunk {
		if err := u.part(ctx, offset, min(u.chunk, u.size-offset)); err != nil {
			return transfer.Trace(err, fmt.Sprintf("while uploading part %d of an S3 multipart upload", len(u.etags)+1))
		}
	}
	if err := u.complete(ctx); err != nil {
		return transfer.Trace(err, "while finishing an S3 multipart upload")
	}
	return nil
}

// setChunk enlarges the parts if there would be too many.
func (u *upload) setChunk() error {
	u.chunk = u.store.chunk
	if least := (u.size + maxParts - 1) / maxParts; least > u.chunk {
		u.chunk = least
	}
	if u.chunk > maxPart {
		return fmt.Errorf("file too large for S3 multipart upload: %s would require chunk size of %s (max %s) to stay within %d part limit",
			renderSize(u.size), renderSize(u.chunk), renderSize(maxPart), maxParts)
	}
	return nil
}

var uploadID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`<UploadId>([^<]+)</UploadId>`) })

func (u *upload) create(ctx context.Context) error {
	r, err := u.store.request(ctx, http.MethodPost, u.name, url.Values{"uploads": {""}}, u.call)
	if err != nil {
		return err
	}
	r.Header, r.ContentType, r.Body = u.header, u.contentType, text("")
	got, err := u.store.do(ctx, r, u.call)
	if err != nil {
		return err
	}
	match := uploadID().FindStringSubmatch(got.text)
	if match == nil {
		return errors.New("S3 CreateMultipartUpload response missing <UploadId>")
	}
	u.id = match[1]
	return nil
}

// part sends the bytes from offset on. Another attempt opens the body anew and passes over what comes before.
func (u *upload) part(ctx context.Context, offset, size int64) error {
	number := len(u.etags) + 1
	r, err := u.store.request(ctx, http.MethodPut, u.name,
		url.Values{"partNumber": {strconv.Itoa(number)}, "uploadId": {u.id}}, u.call)
	if err != nil {
		return err
	}
	r.ContentType = "application/octet-stream"
	r.Body = func() (io.ReadCloser, int64, error) {
		if err := u.seek(offset); err != nil {
			return nil, 0, err
		}
		return &section{u: u, left: size}, size, nil
	}
	got, err := u.store.do(ctx, r, u.call)
	if err != nil {
		return err
	}
	if got.etag == "" {
		return fmt.Errorf("S3 UploadPart response missing ETag for part %d", number)
	}
	u.etags = append(u.etags, got.etag)
	return nil
}

// seek makes now continue at an offset.
func (u *upload) seek(offset int64) error {
	if u.now != nil && u.at == offset {
		return nil
	}
	if u.now != nil {
		if err := u.now.Close(); err != nil {
			return err
		}
	}
	now, _, err := u.body()
	if err != nil {
		return err
	}
	u.now, u.at = now, offset
	if s, ok := now.(io.Seeker); ok {
		_, err = s.Seek(offset, io.SeekStart)
		return err
	}
	_, err = io.CopyN(io.Discard, now, offset)
	return err
}

// section is one part's share of the body. Closing it leaves the body open for the next.
type section struct {
	u    *upload
	left int64
}

func (s *section) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.u.now.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	s.u.at += int64(n)
	if err == io.EOF && s.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (s *section) Close() error { return nil }

func (u *upload) complete(ctx context.Context) error {
	if len(u.etags) == 0 {
		return errors.New("no data read from stream")
	}
	var b strings.Builder
	b.WriteString("<CompleteMultipartUpload>")
	for i, etag := range u.etags {
		fmt.Fprintf(&b, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, escapeXML(etag))
	}
	b.WriteString("</CompleteMultipartUpload>")
	r, err := u.store.request(ctx, http.MethodPost, u.name, url.Values{"uploadId": {u.id}}, u.call)
	if err != nil {
		return err
	}
	r.Body, r.ContentType = text(b.String()), "text/xml"
	got, err := u.store.do(ctx, r, u.call)
	if err != nil {
		return err
	}
	// S3 answers before it knows, so that even an error has status 200.
	if strings.Contains(got.text, "<Error>") {
		return fmt.Errorf("complete multipart upload of '%s': %s", u.name, got.text[:min(len(got.text), 1024)])
	}
	return nil
}

func escapeXML(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// abort makes S3 forget the parts, which cost money. The upload's own error is what matters. A part that was under way
// may arrive after the first attempt, so this is done until S3 does not know the upload any more, or a few times
// (AbortMultipartUpload in S3's reference).
func (u *upload) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	for try := range abortTries {
		r, err := u.store.request(ctx, http.MethodDelete, u.name, url.Values{"uploadId": {u.id}}, u.call)
		if err != nil {
			return
		}
		r.Attempts = 1
		if _, err = u.store.do(ctx, r, u.call); err != nil {
			return // as a rule because there is none
		}
		select {
		case <-time.After(abortPause << try):
		case <-ctx.Done():
			return
		}
	}
}

// text is a body of few bytes.
func text(s string) func() (io.ReadCloser, int64, error) {
	return func() (io.ReadCloser, int64, error) {
		return io.NopCloser(strings.NewReader(s)), int64(len(s)), nil
	}
}
