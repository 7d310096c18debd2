package remote

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"nixdaemon/worker/build"
	"nixdaemon/worker/settings"
)

// Bounds of what files of machines may say.
const (
	maxMachines  = 10_000
	maxFileSize  = 16 << 20
	maxFileDepth = 16
)

// Parse reads the setting builders: machines separated by newlines and semicolons, or "@" and the name of a file with
// more of them. system is that of machines that name none. Errors have upstream's texts (libstore/machines.cc).
func Parse(builders, system string) ([]*Machine, error) {
	entries, err := expand(nil, builders, 0)
	if err != nil {
		return nil, err
	}
	machines := make([]*Machine, 0, len(entries))
	for _, entry := range entries {
		m, err := parseMachine(entry, system)
		if err != nil {
			return nil, err
		}
		machines = append(machines, m)
	}
	return machines, nil
}

// expand appends the machines' entries to those before them.
func expand(entries []string, text string, depth int) ([]string, error) {
	if depth > maxFileDepth {
		return nil, errors.New("files of machines name each other in a circle")
	}
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for entry := range strings.SplitSeq(line, ";") {
			entry = strings.Trim(entry, " \n\r\t")
			name, isFile := strings.CutPrefix(entry, "@")
			var err error
			switch {
			case entry == "":
			case isFile:
				entries, err = expandFile(entries, strings.Trim(name, " \n\r\t"), depth)
			default:
				entries = append(entries, entry)
			}
			if err == nil && len(entries) > maxMachines {
				err = errors.New("there are more than " + strconv.Itoa(maxMachines) + " remote machines")
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return entries, nil
}

func expandFile(entries []string, name string, depth int) ([]string, error) {
	text, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	if err != nil {
		return nil, err
	}
	return expand(entries, text, depth+1)
}

func readFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if len(text) > maxFileSize {
		err = errors.New("the file of machines '" + name + "' is too large")
	}
	return string(text), err
}

// The columns of an entry.
const (
	columnURI = iota
	columnSystems
	columnSSHKey
	columnMaxJobs
	columnSpeed
	columnSupported
	columnMandatory
	columnHostKey
)

// entry is one machine's, in columns.
type entry struct {
	line   string
	tokens []string
}

// get gives a column; "" is what is left to the default.
func (e *entry) get(column int) string {
	if column >= len(e.tokens) || e.tokens[column] == "-" {
		return ""
	}
	return e.tokens[column]
}

func (e *entry) set(column int, fallback []string) []string {
	if e.get(column) == "" {
		return fallback
	}
	items := strings.FieldsFunc(e.get(column), func(r rune) bool { return r == ',' })
	slices.Sort(items)
	return slices.Compact(items)
}

func (e *entry) badNumber(column int, kind string) error {
	return &build.Error{Msg: build.Textf("bad machine specification: failed to convert column #%s in a row: '%s' to '"+kind+"'",
		strconv.Itoa(column), e.line)}
}

func parseMachine(line, system string) (*Machine, error) {
	e := &entry{line: line, tokens: settings.Tokens(line)}
	if e.get(columnURI) == "" {
		return nil, &build.Error{Msg: build.Textf("bad machine specification: store URL was not found at the first column of a row: '%s'", line)}
	}
	m := &Machine{
		Systems: e.set(columnSystems, []string{system}), SSHKey: e.get(columnSSHKey), MaxJobs: 1, SpeedFactor: 1,
		Supported: e.set(columnSupported, nil), Mandatory: e.set(columnMandatory, nil), HostKey: e.get(columnHostKey),
	}
	if err := m.parseNumbers(e); err != nil {
		return nil, err
	}
	if err := checkBase64(m.HostKey, e); err != nil {
		return nil, err
	}
	var err error
	if m.Store, err = settings.ParseStoreReference(completeURI(e.get(columnURI))); err != nil {
		return nil, err
	}
	m.URI = m.Store.String()
	if m.SpeedFactor < 0 {
		return nil, &build.Error{Msg: build.Textf("speed factor must be >= 0")}
	}
	return m, nil
}

func (m *Machine) parseNumbers(e *entry) error {
	if text := e.get(columnMaxJobs); text != "" {
		n, err := strconv.ParseUint(strings.TrimPrefix(text, "+"), 10, 32)
		if err != nil {
			return e.badNumber(columnMaxJobs, "unsigned int")
		}
		m.MaxJobs = uint(n)
	}
	if text := e.get(columnSpeed); text != "" {
		f, err := strconv.ParseFloat(text, 32)
		if err != nil || strings.ContainsAny(text, "xX_pP") || math.IsNaN(f) {
			return e.badNumber(columnSpeed, "float")
		}
		if m.SpeedFactor = float32(f); m.SpeedFactor == 0 {
			m.SpeedFactor = 1
		}
	}
	return nil
}

// checkBase64 refuses what upstream's decoder does, which goes by single characters and ends at the first "=".
func checkBase64(text string, e *entry) error {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	text, _, _ = strings.Cut(text, "=")
	rest := strings.TrimLeft(text, digits)
	if rest == "" {
		return nil
	}
	return build.Trace("while parsing machine specification at a column #"+strconv.Itoa(columnHostKey)+" in a row: '"+e.line+"'",
		&build.Error{Msg: build.Textf("invalid character in Base64 string: '%s'", rest[:1])})
}

// completeURI makes an address of a bare host name.
func completeURI(uri string) string {
	switch {
	case strings.Contains(uri, "/"), uri == "auto", uri == "daemon", uri == "local", strings.HasPrefix(uri, "auto?"),
		strings.HasPrefix(uri, "daemon?"), strings.HasPrefix(uri, "local?"), strings.HasPrefix(uri, "?"):
		return uri
	}
	return "ssh://" + uri
}
