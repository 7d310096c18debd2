package builtin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"nixdaemon/protocol/compression"
	"nixdaemon/worker/builtin/builtinjob"
	"nixdaemon/worker/transfer"
	"nixdaemon/worker/transfer/s3"
)

// fetcher makes downloads with the job's settings.
type fetcher struct {
	engine   *transfer.Engine
	settings transfer.Settings
	keys     *builtinjob.Keys // of S3, nil without
	log      *logger
	decoders compression.Decoders
}

func newFetcher(b *builder) *fetcher {
	set := b.transfer()
	return &fetcher{
		engine:   transfer.New(transfer.Options{Getenv: b.getenv, Pause: b.pause}),
		settings: transferSettings(set, b.job),
		keys:     b.job.S3Keys,
		log:      b.log,
	}
}

func transferSettings(set builtinjob.Transfer, job *builtinjob.Job) transfer.Settings {
	milliseconds := func(n uint64) time.Duration { return time.Duration(min(n, 1<<32)) * time.Millisecond }
	seconds := func(n uint64) time.Duration { return time.Duration(min(n, 1<<31)) * time.Second }
	return transfer.Settings{
		ConnectTimeout:  seconds(set.ConnectTimeout),
		StalledTimeout:  seconds(set.StalledTimeout),
		Attempts:        uint(set.Attempts),
		RetryDelay:      milliseconds(set.RetryDelay),
		RateLimitDelay:  milliseconds(set.RateLimitDelay),
		MaxRetryDelay:   milliseconds(set.MaxRetryDelay),
		Jitter:          set.Jitter,
		Speed:           min(set.Speed, 1<<40) << 10,
		HTTP2:           set.HTTP2,
		UserAgentSuffix: set.UserAgentSuffix,
		Netrc:           job.Netrc,
		CABundle:        job.CABundle,
	}
}

func (f *fetcher) close() { f.engine.Close() }

// download is the contents of one URL. Its errors are in the form of the log.
type download struct {
	body io.ReadCloser
	err  error // what ended it
}

// open begins a download. restart is called before contents come again from their beginning; if it is nil they cannot.
func (f *fetcher) open(ctx context.Context, url string, restart func() error) (*download, error) {
	r := &transfer.Request{URL: url, Files: true, Restart: restart, Log: f.log, IDs: &f.log.ids}
	if strings.HasPrefix(url, "s3:") {
		if err := f.toS3(r); err != nil {
			return nil, inLog(err)
		}
	}
	resp, err := f.engine.Do(ctx, &f.settings, r)
	if err != nil {
		return nil, inLog(err)
	}
	return &download{body: resp.Body}, nil
}

// toS3 makes the request for an s3:// URL. It is signed if the daemon had keys for it.
func (f *fetcher) toS3(r *transfer.Request) error {
	l, err := s3.Parse(r.URL)
	if err != nil {
		return err
	}
	u, err := l.HTTPS()
	if err != nil {
		return err
	}
	r.URL, r.Files = u.String(), false
	if f.keys != nil {
		keys := s3.Keys{AccessKeyID: f.keys.AccessKeyID, SecretAccessKey: f.keys.SecretAccessKey, SessionToken: f.keys.SessionToken}
		r.Sign = func(req *http.Request) error { return keys.Sign(l.SigningRegion(), req) }
	}
	return nil
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.body.Read(p)
	if err != nil && err != io.EOF {
		d.err = inLog(err)
		err = d.err
	}
	return n, err
}

func (d *download) stop() { _ = d.body.Close() }

// orTransfer gives the reason why the download ended, if that is what another error comes from.
func (d *download) orTransfer(err error) error {
	if err != nil && d.err != nil {
		return d.err
	}
	return err
}

// inLog gives the failure of a transfer the form of the log.
func inLog(err error) error {
	if t, ok := errors.AsType[*transfer.Error](err); ok {
		return &failure{text: t.Coloured(), cause: t}
	}
	var traced interface{ Traces() []string }
	if errors.As(err, &traced) {
		return &failure{text: err.Error(), traces: traced.Traces(), cause: err}
	}
	return err
}
