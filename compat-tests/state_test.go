package compat

import (
	"compress/bzip2"
	"database/sql"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	_ "modernc.org/sqlite"
)

// state describes what a daemon left in a scratch: rows of the database, the
// store's files, roots and logs, and what locks and temporary files remain.
// Times and inode numbers are left out, the rest must not depend on who wrote.
func (s scratch) state(t testing.TB) []string {
	t.Helper()
	lines := s.rows(t)
	lines = append(lines, registered(lines, s.tree(t, "store"))...)
	for _, dir := range []string{"var/nix/gcroots", "var/nix/profiles", "var/nix/builds", "var/log"} {
		lines = append(lines, s.tree(t, dir)...)
	}
	return normaliseLines(strings.Join(lines, "\n"))
}

// storeObject matches a line about a store object or what is in it.
var storeObject = regexp.MustCompile(`^store/([0-9a-z]{32}-[^/ ]+)`)

// registered leaves out store objects that no row speaks of: what a failed
// build leaves behind is garbage, and whose is neater does not matter.
// Names of another form, such as temporary directories, stay.
func registered(rows, tree []string) []string {
	valid := make(map[string]bool)
	for _, row := range rows {
		if path, ok := strings.CutPrefix(row, "path "); ok {
			path, _, _ = strings.Cut(path, " ")
			valid[filepath.Base(path)] = true
		}
	}
	return slices.DeleteFunc(tree, func(line string) bool {
		m := storeObject.FindStringSubmatch(line)
		return m != nil && !valid[m[1]]
	})
}

// stateQueries name paths instead of row numbers, which need not be equal.
var stateQueries = []string{
	`select 'path ' || path || ' hash=' || hash || ' deriver=' || ifnull(deriver, 'NULL') || ' size=' || ifnull(narSize, 'NULL') ||
	   ' ultimate=' || ifnull(ultimate, 'NULL') || ' sigs=' || ifnull(sigs, 'NULL') || ' ca=' || ifnull(ca, 'NULL')
	 from ValidPaths order by path`,
	`select 'ref ' || a.path || ' -> ' || b.path from Refs r
	   join ValidPaths a on r.referrer = a.id join ValidPaths b on r.reference = b.id order by a.path, b.path`,
	`select 'output ' || d.path || '!' || o.id || ' = ' || o.path from DerivationOutputs o
	   join ValidPaths d on o.drv = d.id order by d.path, o.id`,
}

func (s scratch) rows(t testing.TB) []string {
	t.Helper()
	file := s.path("var/nix/db/db.sqlite")
	if _, err := os.Stat(file); err != nil {
		return []string{"no database"}
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var lines []string
	for _, q := range stateQueries {
		rows, err := db.Query(q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, line)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return lines
}

// tree lists what lies beneath a directory of the scratch. File contents are
// left to the database's hashes, which are verified.
func (s scratch) tree(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(s.path(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == s.path(dir) {
			return ignoreMissing(err)
		}
		if d.Type()&fs.ModeSymlink != 0 && strings.HasPrefix(path, s.path("var/nix/gcroots/auto")) {
			// The name depends on where the root was, and a root that is no
			// more is nobody's business.
			if _, err := os.Stat(path); err != nil {
				return ignoreMissing(err)
			}
		}
		if strings.HasSuffix(path, ".lock") {
			// Upstream leaves some, depending on how a client went away.
			return nil
		}
		line, err := describe(path)
		rel, _ := filepath.Rel(s.root, path)
		lines = append(lines, rel+" "+line)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

func ignoreMissing(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

func describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	line := info.Mode().String()
	stat := info.Sys().(*syscall.Stat_t)
	line += fmt.Sprintf(" %d:%d", stat.Uid, stat.Gid)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return line + " -> " + target, err
	case strings.HasSuffix(path, ".bz2"):
		// How well it is packed is each daemon's own business.
		log, err := readLog(path)
		return fmt.Sprintf("%s %q", line, log), err
	case info.Mode().IsRegular():
		line += fmt.Sprintf(" %d bytes", info.Size())
	}
	if strings.Contains(path, "/store/") && !strings.Contains(path, "/.links") {
		line += fmt.Sprintf(" canonical time %v", info.ModTime().Unix() == 1)
	}
	return line, nil
}

// readLog returns the text of a packed build log.
func readLog(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	log, err := io.ReadAll(bzip2.NewReader(file))
	return varyingInLogs.ReplaceAll(log, nil), err
}

// varyingInLogs is how often a download tells how far it is, and the numbers
// of activities.
var varyingInLogs = regexp.MustCompile(`(?m)^@nix \{.*"type":105\}\n|(?:,)?"id":\d{10,}`)

// verify has the reference's own tools check the store directly: every path
// there, every hash right.
func (s scratch) verify(t testing.TB, reference client) {
	t.Helper()
	p := reference.program("nix-store")
	cmd := exec.Command(p.path, "--verify", "--check-contents")
	cmd.Env = append(s.clientEnv(reference), "NIX_REMOTE=", "NIX_CONFIG=extra-experimental-features = git-hashing blake3-hashes")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the store does not verify: %v\n%s", err, out)
	}
}
