package compat

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// journalFields expects what people search the journal by: entries of the daemon's own, with the fields of what they tell,
// from a real journald.
func journalFields(t *testing.T, m *system) {
	path := m.build("journaled")
	if out, err := m.try("nix-build", "--no-out-link", "-E", shell("journaled-failure", "echo not for the journal; exit 3")); err == nil {
		t.Fatalf("built %s", out)
	}
	m.must("nix-store", "--verify") // which takes privileges
	drv := m.must("nix-store", "--query", "--deriver", path)
	server := m.servers()[0]
	for _, want := range []struct {
		search string
		fields map[string]string
		// any are fields of whatever value.
		any string
	}{
		{"NIX_EVENT=connection", map[string]string{"PRIORITY": "6", "NIX_USER": "root", "NIX_TRUSTED": "true"},
			"MESSAGE NIX_PID NIX_CONNECTION NIX_SECONDS NIX_REQUESTS NIX_FAILED"},
		{"NIX_DRV=" + drv, map[string]string{
			"PRIORITY": "6", "NIX_EVENT": "build", "NIX_USER": "root", "NIX_STATUS": "Built", "NIX_LOG_BYTES": "0",
		}, "MESSAGE NIX_SECONDS NIX_WAITED NIX_CPU"},
		{"NIX_STATUS=PermanentFailure", map[string]string{
			"PRIORITY": "6", "NIX_EVENT": "build", "NIX_USER": "root", "NIX_LOG_BYTES": "20",
		}, "MESSAGE NIX_DRV NIX_ERROR NIX_SECONDS NIX_WAITED NIX_CPU"},
		{"NIX_ACTION=verify", map[string]string{
			"PRIORITY": "5", "NIX_EVENT": "audit", "NIX_AUDIT": "true", "NIX_OUTCOME": "done", "NIX_USER": "root", "NIX_UID": "0", "NIX_TRUSTED": "true",
		}, "MESSAGE NIX_PID NIX_CONNECTION"},
	} {
		want.fields["SYSLOG_IDENTIFIER"], want.fields["_SYSTEMD_UNIT"], want.fields["_UID"] = "nix-daemon", service, "0"
		want.fields["_PID"], want.fields["_TRANSPORT"] = server, "journal"
		m.await(func() error {
			entries, err := m.entries(want.search)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if err = lacks(e, want.fields, strings.Fields(want.any)); err == nil {
					return nil
				}
			}
			return fmt.Errorf("%s: none of %d entries will do: %w", want.search, len(entries), err)
		})
	}
	if n := m.journal(service, "not for the journal"); n != 0 {
		t.Errorf("what a builder prints is in the journal, %d times", n)
	}
}

// entries are those of the unit's journal that match, newest first.
func (m *system) entries(match string) ([]map[string]any, error) {
	out, err := m.try("journalctl", "--no-pager", "--output=json", "--reverse", "--unit="+service, match)
	if err != nil {
		return nil, err
	}
	var entries []map[string]any
	for line := range strings.Lines(out) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("%w in %s", err, line)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// lacks tells what an entry of the journal has not got.
func lacks(entry map[string]any, fields map[string]string, names []string) error {
	for name, want := range fields {
		if entry[name] != want {
			return fmt.Errorf("%s is %v, want %s, in %v", name, entry[name], want, entry)
		}
	}
	for _, name := range names {
		if text, ok := entry[name].(string); !ok || text == "" {
			return fmt.Errorf("no %s in %v", name, entry)
		}
	}
	return nil
}
