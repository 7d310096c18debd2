package daemon

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/status/daemonlog"
	"nixdaemon/worker"
)

// trail is the audit trail: who has done, or was refused, what takes more than a
// right to connect. Its lines are in the daemon's log, whatever its level, and
// in a file of their own if there is one.
type trail struct {
	logs     []zerolog.Logger
	file     io.Closer
	refusals *refusals
}

// openTrail opens the file, if one is named, to which lines are appended.
func openTrail(path string, log zerolog.Logger) (*trail, error) {
	t := &trail{logs: []zerolog.Logger{log}}
	t.refusals = newRefusals(t.leftOut)
	if path == "" {
		return t, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the file of audit-log-file: %w", err)
	}
	out := &trailFile{f, log}
	t.logs, t.file = append(t.logs, daemonlog.New(daemonlog.Options{Out: out, Format: daemonlog.JSON})), f
	return t, nil
}

func (t *trail) close() {
	t.refusals.close()
	if t.file != nil {
		t.file.Close()
	}
}

// trailFile tells when a line could not be written: that must not pass unseen.
type trailFile struct {
	*os.File
	log zerolog.Logger
}

func (f *trailFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if err != nil {
		f.log.Error().Err(err).Msg("write the audit trail")
	}
	return n, err
}

// note writes a deed down.
func (t *trail) note(p Peer, deed worker.Privilege) {
	outcome := "done"
	switch {
	case deed.Refused:
		if !t.refusals.admit(p.User) {
			return
		}
		outcome = "refused"
	case deed.Err != nil:
		outcome = "failed"
	}
	for i := range t.logs {
		e := t.logs[i].Log().Bool("audit", true).Str(daemonlog.EventKey, "audit").Str("action", string(deed.Action)).Str("outcome", outcome).
			Str("user", p.User).Bool("trusted", p.Trusted).Int("pid", p.PID).Uint64("connection", p.Client)
		if p.Known {
			e = e.Uint32("uid", p.UID)
		}
		if len(deed.Subject) > 0 {
			e = e.Strs("subject", deed.Subject)
		}
		for name, n := range deed.Details {
			e = e.Uint64(name, n)
		}
		if deed.Err != nil {
			e = e.Str("error", briefly(deed.Err))
		}
		e.Msg(deedText(p, deed, outcome))
	}
}

// leftOut notes how many refusals of a user have no line.
func (t *trail) leftOut(user string, n uint64) {
	for i := range t.logs {
		t.logs[i].Log().Bool("audit", true).Str(daemonlog.EventKey, "audit").Str("action", "left-out").Str("outcome", "refused").
			Str("user", user).Uint64("count", n).Msgf("audit: %d more deeds by %s: refused, and left out here", n, user)
	}
}

// deedText is a deed in words.
func deedText(p Peer, deed worker.Privilege, outcome string) string {
	text := fmt.Sprintf("audit: %s by %s (pid %d)", deed.Action, p.User, p.PID)
	if len(deed.Subject) > 0 {
		text += ": " + strings.Join(deed.Subject, ", ")
	}
	text += ": " + outcome
	if deed.Err != nil {
		text += ": " + briefly(deed.Err)
	}
	return text
}
