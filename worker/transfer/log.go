package transfer

import (
	"strconv"
	"time"

	"nixdaemon/protocol/activity"
)

// start tells that the transfer has begun: when it is the request's turn, not before.
func (t *transfer) start() {
	r := t.request
	if t.id != 0 || r.Log == nil {
		return
	}
	t.id = r.IDs.Next()
	url := Shown(r.URL)
	r.Log.Start(t.id, activity.Talkative, activity.FileTransfer, r.doing()+" '"+url+"'",
		[]activity.Field{activity.Text(url)}, r.Parent)
}

// progress tells how far the transfer is, unless that was told a moment ago and this is not the last time. Both
// goroutines of an upload call it.
func (t *transfer) progress(done, expected uint64, last bool) {
	if t.id == 0 {
		return
	}
	now := time.Now().UnixNano()
	before := t.told.Load()
	if !last && (now-before < int64(progressInterval) || !t.told.CompareAndSwap(before, now)) {
		return
	}
	t.request.Log.Result(t.id, activity.Progress, []activity.Field{activity.Number(done), activity.Number(expected),
		activity.Number(0), activity.Number(0)})
}

// stop releases what the transfer has and tells that it has ended.
func (t *transfer) stop() {
	if t.now != nil {
		t.now.close()
		t.now = nil
	}
	if t.id != 0 {
		t.request.Log.Stop(t.id)
		t.id = 0
	}
}

// warn tells that another attempt will be made.
func (t *transfer) warn(why *Error, delay time.Duration, attempts uint) {
	if t.request.Log == nil {
		return
	}
	text := why.Coloured() + "; retrying"
	if t.given > 0 {
		text += " from offset " + strconv.FormatInt(t.given, 10)
	}
	text += " in " + strconv.FormatInt(delay.Milliseconds(), 10) + " ms (attempt " +
		strconv.FormatUint(uint64(t.attempts), 10) + "/" + strconv.FormatUint(uint64(attempts), 10) + ")"
	t.request.Log.Message(activity.Warn, "\x1b[35;1mwarning:\x1b[0m "+text)
}
