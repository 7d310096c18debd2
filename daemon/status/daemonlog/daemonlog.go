// Package daemonlog is the daemon's own log: what an administrator reads, not
// what clients see. [New] gives a zerolog.Logger whose lines have the form that
// suits where they go ([Format]), and in none of which is the password of a URL.
//
// A line is a message for people with fields for programs. Where it tells the
// end of something, field "event" names what ended, and the message says in
// words all that the other fields say; people are shown the message alone.
package daemonlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/rs/zerolog"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/activity/jsonlog"
)

// Format is the form of a line.
type Format string

// The forms.
const (
	// Auto is Journal where standard error leads to the journal, Human on a
	// terminal or where systemd is said to read (IN_SYSTEMD=1), else JSON.
	Auto Format = "auto"
	// Human is text, with "<N>" before it where systemd is said to read.
	Human Format = "human"
	// JSON is an object for each line, with "level", "time" and "message".
	JSON Format = "json"
	// Journal is an entry of the system's journal with fields.
	Journal Format = "journal"
	// Internal is upstream's internal-json.
	Internal Format = "internal-json"
)

// Formats are those that can be chosen.
var Formats = []Format{Auto, Human, JSON, Journal, Internal}

// EventKey is the field that names what a line tells the end of.
const EventKey = "event"

// Options say where lines go and how they look.
type Options struct {
	Out    io.Writer
	Format Format
	// Level is the least important that is written.
	Level zerolog.Level
	// Systemd is set where IN_SYSTEMD=1 says that systemd reads what we write.
	Systemd bool
	// Terminal is set if Out is one, ToJournal if it leads to the journal.
	Terminal, ToJournal bool
	// Send sends an entry to the journal; nil is the system's.
	Send func(message string, priority journal.Priority, vars map[string]string) error
	// Now is the time; nil is time.Now.
	Now func() time.Time
}

// Stderr fills in what is known of standard error.
func Stderr(format Format, level zerolog.Level) Options {
	toJournal, _ := journal.StderrIsJournalStream()
	return Options{
		Out: os.Stderr, Format: format, Level: level, Systemd: os.Getenv("IN_SYSTEMD") == "1",
		Terminal: isTerminal(os.Stderr), ToJournal: toJournal && journal.Enabled(),
	}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// New makes a log.
func New(o Options) zerolog.Logger {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Send == nil {
		o.Send = journal.Send
	}
	l := zerolog.New(&writer{o: o, format: o.resolved()}).Level(o.Level)
	if o.resolved() == JSON {
		l = l.Hook(zerolog.HookFunc(func(e *zerolog.Event, _ zerolog.Level, _ string) {
			e.Str("time", o.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00"))
		}))
	}
	return l
}

func (o *Options) resolved() Format {
	switch {
	case o.Format != Auto && o.Format != "":
		return o.Format
	case o.ToJournal:
		return Journal
	case o.Terminal || o.Systemd:
		return Human
	}
	return JSON
}

// writer turns zerolog's objects into lines. A line is one write.
type writer struct {
	o      Options
	format Format

	mu   sync.Mutex
	line []byte
}

var _ zerolog.LevelWriter = (*writer)(nil)

// Write writes a line without a level.
func (w *writer) Write(p []byte) (int, error) { return w.WriteLevel(zerolog.NoLevel, p) }

// WriteLevel writes a line.
func (w *writer) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	clean := Scrub(p)
	if w.format == JSON {
		_, err := w.write(clean)
		return len(p), err
	}
	message, fields := split(clean)
	if w.format == Journal && w.o.Send(message, priority(level), journalFields(fields)) == nil {
		return len(p), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line = w.line[:0]
	if w.format == Internal {
		w.line = jsonlog.AppendMessage(append(w.line, "@nix "...), activityLevel(level), human(message, fields))
	} else {
		before := ""
		if w.o.Systemd || w.format == Journal {
			before = "<" + string('0'+rune(mark(level))) + ">"
		}
		w.line = appendEntry(w.line, before, human(message, fields))
	}
	w.line = append(w.line, '\n')
	_, err := w.o.Out.Write(w.line)
	return len(p), err
}

// appendEntry appends a text that is one entry to whoever reads lines, whatever clients and builders had put into it: lines
// after the first are marked like that, and indented, and no character is left that a terminal acts upon.
func appendEntry(b []byte, before, text string) []byte {
	indent := ""
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if indent != "" {
			b = append(b, '\n')
		}
		b = append(append(append(b, before...), indent...), strings.Map(harmless, line)...)
		indent = "    "
	}
	return b
}

func harmless(r rune) rune {
	if unicode.IsControl(r) && r != '\t' {
		return '?'
	}
	return r
}

func (w *writer) write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.o.Out.Write(p)
}

// userinfo is what stands between the scheme and the host of a URL.
var userinfo = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s"'<>]*@`) })

// Scrub takes user and password out of the URLs in a line. Whoever writes lines
// leaves secrets out by themselves; an error's text may yet have brought one.
func Scrub(line []byte) []byte {
	if !bytes.Contains(line, []byte("@")) || !bytes.Contains(line, []byte("://")) {
		return line
	}
	return userinfo().ReplaceAll(line, []byte("$1"))
}

// split takes an object of zerolog's apart.
func split(p []byte) (message string, fields map[string]any) {
	d := json.NewDecoder(bytes.NewReader(p))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return strings.TrimSpace(string(p)), nil
	}
	message, _ = fields[zerolog.MessageFieldName].(string)
	delete(fields, zerolog.MessageFieldName)
	delete(fields, zerolog.LevelFieldName)
	return message, fields
}

// human is a line as people read it.
func human(message string, fields map[string]any) string {
	if _, told := fields[EventKey]; told {
		return message
	}
	var b strings.Builder
	b.WriteString(message)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := valueText(fields[name])
		if value == "" || strings.ContainsAny(value, " \n\t\"=") && name != "stack" {
			value = strconv.Quote(value)
		}
		b.WriteString(" " + name + "=" + value)
	}
	return b.String()
}

func valueText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		words := make([]string, len(v))
		for i, word := range v {
			words[i] = valueText(word)
		}
		return strings.Join(words, ",")
	}
	return fmt.Sprint(v)
}

// journalFields are the fields under the names that the journal wants, ours
// among all others.
func journalFields(fields map[string]any) map[string]string {
	vars := map[string]string{"SYSLOG_IDENTIFIER": "nix-daemon"}
	for name, v := range fields {
		vars["NIX_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = valueText(v)
	}
	return vars
}

func priority(level zerolog.Level) journal.Priority {
	switch level {
	case zerolog.DebugLevel, zerolog.TraceLevel:
		return journal.PriDebug
	case zerolog.InfoLevel:
		return journal.PriInfo
	case zerolog.WarnLevel:
		return journal.PriWarning
	case zerolog.NoLevel:
		return journal.PriNotice
	}
	return journal.PriErr
}

// mark is what upstream writes before lines for systemd (libutil/logging.cc).
func mark(level zerolog.Level) journal.Priority {
	if level == zerolog.InfoLevel {
		return journal.PriNotice
	}
	return priority(level)
}

func activityLevel(level zerolog.Level) activity.Level {
	switch level {
	case zerolog.DebugLevel, zerolog.TraceLevel:
		return activity.Debug
	case zerolog.WarnLevel:
		return activity.Warn
	case zerolog.InfoLevel, zerolog.NoLevel:
		return activity.Info
	}
	return activity.Error
}
