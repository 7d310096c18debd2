package compat

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documents reads all of the project, by name, but for the list of changes, which tells of what was.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, pattern := range []string{"*.md", "contrib/*.md", "contrib/*/*.md", "compat-tests/*.md"} {
		files, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all[strings.TrimPrefix(file, "../")] = string(text)
		}
	}
	delete(all, "CHANGELOG.md")
	if len(all) < 10 {
		t.Fatalf("only %d documents", len(all))
	}
	return all
}

// sources is the text of all Go files, tests apart.
func sources(t *testing.T) (code, tests string) {
	t.Helper()
	var codes, testing strings.Builder
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.HasSuffix(path, "_test.go") {
			testing.Write(text)
		} else {
			codes.Write(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return codes.String(), testing.String()
}

var (
	codeSpan  = regexp.MustCompile("`([^`\n]+)`")
	sourceRef = regexp.MustCompile(`^(compat-tests|contrib|daemon|localstore|protocol|sandbox|worker)(/[\w.-]+)+$`)
	testRef   = regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w+$`)
)

// TestDocumentsReferToWhatIs looks up each file, package and test that a document names.
func TestDocumentsReferToWhatIs(t *testing.T) {
	_, tests := sources(t)
	for name, text := range documents(t) {
		found := 0
		for _, span := range codeSpan.FindAllStringSubmatch(text, -1) {
			switch ref := span[1]; {
			case sourceRef.MatchString(ref):
				found++
				if _, err := os.Stat(filepath.Join("..", ref)); err != nil {
					t.Errorf("%s names %s: %v", name, ref, err)
				}
			case testRef.MatchString(ref):
				found++
				if !strings.Contains(tests, "func "+ref+"(") {
					t.Errorf("%s names %s, which is no test", name, ref)
				}
			}
		}
		if found == 0 && (name == "contrib/doc/architecture.md" || name == "contrib/doc/security.md") {
			t.Errorf("found nothing in %s", name)
		}
	}
}

// TestDocumentedMessages looks up each message that the operator's guide explains.
func TestDocumentedMessages(t *testing.T) {
	code, _ := sources(t)
	_, table, ok := strings.Cut(documents(t)["contrib/doc/operating.md"], "| message | meaning |")
	if !ok {
		t.Fatal("no table of messages")
	}
	rows := 0
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| `") || strings.Contains(line, "` (client)") || strings.Contains(line, "` (systemd)") {
			continue
		}
		rows++
		message := codeSpan.FindStringSubmatch(line)[1]
		for part := range strings.SplitSeq(strings.TrimPrefix(message, "error: "), "…") {
			if !strings.Contains(code, strings.TrimSpace(part)) {
				t.Errorf("no source has %q of %q", part, message)
			}
		}
	}
	if rows < 10 {
		t.Errorf("only %d messages", rows)
	}
}

var confBlock = regexp.MustCompile("(?s)```conf\n(.*?)```")

// TestDocumentedSettings has the daemon read each piece of nix.conf.
func TestDocumentedSettings(t *testing.T) {
	requireClients(t)
	read := 0
	for name, text := range documents(t) {
		for _, block := range confBlock.FindAllStringSubmatch(text, -1) {
			read++
			s := newScratch(t)
			s.configure(t, block[1])
			cmd := exec.Command(shared.daemon.path, "--stdio")
			cmd.Env = s.daemonEnv(shared.daemon)
			out, _ := cmd.CombinedOutput() // nobody speaks to it
			if strings.Contains(string(out), "warning:") || strings.Contains(string(out), "setting") {
				t.Errorf("%s has\n%s\nof which the daemon says\n%s", name, block[1], out)
			}
		}
	}
	if read == 0 {
		t.Error("no settings found")
	}
}

// TestManualsAreWellFormed has the formatter look at the manual pages.
func TestManualsAreWellFormed(t *testing.T) {
	pages, err := filepath.Glob("../contrib/man/*.[58]")
	if err != nil || len(pages) < 2 {
		t.Fatalf("manuals: %v, %v", pages, err)
	}
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Skip("mandoc is not installed")
	}
	if out, err := exec.Command("mandoc", append([]string{"-Tlint", "-Wwarning"}, pages...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
