package builtin

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"time"

	"nixdaemon/protocol/activity"
)

// First delays before a download is tried again (libstore/filetransfer.cc).
const (
	retryDelay       = 250 * time.Millisecond
	retryDelayByRate = 60 * time.Second // when the server says that there were too many requests
)

// progressInterval is how often progress is told at most.
const progressInterval = 200 * time.Millisecond

// download is the contents of one URL. Where an attempt breaks off, the next one goes on, so that its reader sees one
// stream.
type download struct {
	f   *fetcher
	ctx context.Context // of the whole download
	url string
	// restart is called before contents come again from their beginning. If it is nil they cannot.
	restart func() error

	id       activity.ID // 0 before the start
	attempts uint64
	now      *response // nil between attempts
	given    int64     // bytes that the reader has got
	last     *response // the one that given came from
	err      error     // what ended the download
	told     time.Time
}

func (d *download) Read(p []byte) (int, error) {
	for d.err == nil {
		n, err := d.read(p)
		if n > 0 || err == nil && len(p) == 0 {
			return n, nil
		}
		if err == io.EOF {
			d.progress(d.now.received)
			d.err = err
		} else if err != nil {
			d.err = d.retry(err)
		}
	}
	return 0, d.err
}

// read reads from the current attempt.
func (d *download) read(p []byte) (int, error) {
	if d.now == nil {
		var err error
		if d.now, err = d.f.attempt(d.ctx, d.url, d.given, d.last, d.start); err != nil {
			return 0, err
		}
		d.last = d.now
	}
	n, err := d.now.Read(p)
	d.given += int64(n)
	if n > 0 && time.Since(d.told) >= progressInterval {
		d.progress(d.now.expected)
	}
	return n, err
}

// start tells that the download has begun.
func (d *download) start() {
	if d.id != 0 {
		return
	}
	d.id = d.f.log.ids.Next()
	d.f.log.Start(d.id, activity.Talkative, activity.FileTransfer, "downloading '"+d.url+"'",
		[]activity.Field{activity.Text(d.url)}, 0)
}

// progress tells how far the download is. Of the current attempt so many bytes are expected, -1 if that is unknown.
func (d *download) progress(expected int64) {
	d.told = time.Now()
	done := d.now.offset + d.now.received
	if expected >= 0 {
		expected += d.now.offset
	}
	d.f.log.Result(d.id, activity.Progress, []activity.Field{activity.Number(uint64(done)),
		activity.Number(uint64(max(expected, 0))), activity.Number(0), activity.Number(0)})
}

// stop ends the download wherever it is.
func (d *download) stop() {
	if d.now != nil {
		d.now.close()
		d.now = nil
	}
	if d.id != 0 {
		d.f.log.Stop(d.id)
		d.id = 0
	}
}

// orTransfer gives the reason why the download ended, if that is what another error comes from.
func (d *download) orTransfer(err error) error {
	if err != nil && d.err != nil && d.err != io.EOF {
		return d.err
	}
	return err
}

// retry waits until the next attempt is due, or says that there is none.
func (d *download) retry(err error) error {
	if d.now != nil {
		d.now.close()
		d.now = nil
	}
	if d.ctx.Err() != nil {
		return d.interrupted()
	}
	t, ok := errors.AsType[*transferError](err)
	if !ok {
		return err
	}
	f := t.failure(d.url)
	d.attempts++
	resume := d.given > 0 && d.last.resumable() && !t.noRange
	if !t.transient() || d.attempts >= d.f.set.Attempts || d.given > 0 && !resume && d.restart == nil {
		return f
	}
	if d.given > 0 && !resume {
		if err := d.restart(); err != nil {
			return err
		}
		d.given = 0
	}
	delay := d.delay(t)
	d.f.log.warn(retryText(f.text, d.given, delay, d.attempts, d.f.set.Attempts))
	if d.f.pause(d.ctx, delay) != nil {
		return d.interrupted()
	}
	return nil
}

func (d *download) interrupted() error {
	return failf("%s of '%s' was interrupted", plain("download"), d.url)
}

// delay doubles with each attempt, and varies, so that many who failed together do not come back together.
func (d *download) delay(t *transferError) time.Duration {
	base := retryDelay
	if t.status == 429 {
		base = retryDelayByRate
	}
	exponent := min(float64(d.attempts-1), 16) + rand.Float64()/2
	return time.Duration(float64(base) * math.Pow(2, exponent)).Truncate(time.Millisecond)
}
