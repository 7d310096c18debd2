package compat

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Where a command stands that is no block of its own, this tells what becomes of it; anything else is the reason why no
// test runs it, or which does.
const (
	// onMachine are run as they stand on the machine of TestDocumentedOperation.
	onMachine = "on the machine"
	// inSources have their targets, packages, tests and flags looked up by TestDocumentedSources.
	inSources = "in the sources"

	needsMac = "needs a Mac"
)

// documentedWays are the kinds of blocks of commands that a document has, with the test that runs each.
func documentedWays() map[string]map[string]string {
	return map[string]map[string]string{
		"README.md":              {"sources": "TestDocumentedReadme", "machine": "TestDocumentedReadme"},
		"compat-tests/README.md": {"checked": "TestDocumentedSources"},
		"contrib/doc/operating.md": {
			"": "TestDocumentedOperation",
		},
		"contrib/doc/metrics.md": {"": "TestDocumentedOperation"},
		"contrib/doc/status.md": {
			"": "TestDocumentedOperation", "watch": "TestDocumentedOperation", "follow": "TestDocumentedOperation",
			"stored": "TestDocumentedOperation", "cancel": "TestDocumentedOperation",
		},
		"contrib/doc/migrating.md": {
			"": "TestDocumentedMigration", "debian": "TestDocumentedMigration", "tarball": "TestDocumentedMigration",
			"purged": "TestDocumentedMigration", "openrc": "TestOtherInits", "runit": "TestOtherInits",
		},
	}
}

// inlineCommands are those in the running text and in tables.
func inlineCommands() map[string]string {
	return map[string]string{
		"nix-daemon status --json":                    onMachine,
		"nix-daemon status":                           onMachine,
		"nix-store --gc --print-roots":                onMachine,
		"nix-store --optimise":                        onMachine,
		"nix-store --verify --check-contents":         onMachine,
		"nix-collect-garbage --delete-older-than 30d": onMachine,
		"nix store ping":                              onMachine,
		"nix store ping --store daemon":               onMachine,
		"nix config show":                             onMachine,
		"systemctl start nix-daemon.socket":           onMachine,
		"systemctl status":                            onMachine,
		"systemctl reload nix-daemon":                 onMachine,
		"systemctl restart nix-daemon":                onMachine,
		"systemctl stop nix-daemon":                   onMachine,
		"systemctl kill --signal INT nix-daemon":      onMachine,
		"uname -m":                                    onMachine,
		"make install SANDBOX_SHELL=…":                inSources,
		"make release":                                inSources,
		"make test":                                   inSources,
		"make lint":                                   inSources,
		"make demo":                                   inSources,
		"make bench":                                  inSources,
		"make install":                                inSources,
		"go test -short ./...":                        inSources,
		"go test -fuzz FuzzDecode ./protocol":         inSources,
		"go test ./sandbox/darwinprofile -update":     inSources,
		"go test ./...":                               inSources,
		"go test -v":                                  inSources,
		"go test ./compat-tests":                      inSources,
		"go test ./compat-tests -run TestScripts/2.34.8/build-fixed -v":        inSources,
		"go test ./compat-tests -run TestVirtualMachine -v":                    inSources,
		"NIXDAEMON_BINARY=/path/to/nix-daemon go test -count=1 ./compat-tests": inSources,
		"go test ./sandbox/... ./daemon/... ./localstore/... ./worker/build":   inSources,
		"nix-daemon log":                  "a name of what the blocks of status.md run",
		"nix-daemon cancel":               "a name of what the blocks of status.md run",
		"nix-daemon --stdio":              "speaks the protocol on standard input: TestStdio",
		"nix-store --serve":               "speaks a protocol on standard input: the scripts *ssh-*",
		"nix-store --query":               "a kind of queries: the scripts query-*",
		"nix-store …":                     "any command",
		"mount -o remount":                "what programs for stores on an overlay do: TestOverlay",
		"mount -o remount \"$1\"":         "the same",
		"nix-build …":                     "any command",
		"nix store …":                     "any command",
		"nix …":                           "any command",
		"nix build":                       needsMac + ": what is built there",
		"nix copy":                        "a kind of commands: the scripts copy-*",
		"nix path-info":                   "a kind of commands: the script query-info",
		"nix store":                       "a kind of commands: the script nix-store-cmds",
		"./install nix-daemon":            "the blocks of migrating.md run it where the tarball was unpacked",
		"sudo launchctl bootstrap system": needsMac,
		"sudo launchctl kickstart -k system/org.nixos.nix-daemon": needsMac,
		"log stream --predicate 'sender == \"Sandbox\"'":          needsMac,
		"log --follow":           "a name of what the blocks of status.md run",
		"ps -axo uid,command":    needsMac,
		"arch -x86_64":           needsMac,
		"chflags uchg":           needsMac,
		"chmod +a":               needsMac,
		"chmod u+s":              needsMac + ": in a builder",
		"cat /etc/master.passwd": needsMac + ": in a builder",
		"ls ~":                   needsMac + ": in a builder",
		"ipcs -a":                needsMac,
	}
}

// block is a fenced piece of a document.
type block struct {
	kind string   // the first word after the fence
	ways []string // the others
	text string
}

var fencedBlock = regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$")

// blocks are those of a text, in its order.
func blocks(text string) []block {
	var all []block
	for _, m := range fencedBlock.FindAllStringSubmatch(text, -1) {
		words := append(strings.Fields(m[1]), "")
		all = append(all, block{kind: words[0], ways: slices.DeleteFunc(words[1:], func(w string) bool { return w == "" }), text: m[2]})
	}
	return all
}

// prose is a text without its blocks.
func prose(text string) string { return fencedBlock.ReplaceAllString(text, "") }

// commandLines are the commands of a block of the kind sh, without what is said about them.
func commandLines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " #")
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// isCommand tells whether a piece of code is meant for a shell, as far as its look says.
func isCommand(span string) bool {
	words := strings.Fields(span)
	for len(words) > 0 && (words[0] == "sudo" || strings.Contains(words[0], "=")) {
		words = words[1:]
	}
	if len(words) < 2 || words[1] == "=" || strings.HasPrefix(words[0], "--") {
		return false
	}
	program := regexp.MustCompile(`^(nix|nix-[a-z]+|make|go|git|dpkg(-\w+)?|apt(-get)?|systemctl|journalctl|rc-\w+|sv|launchctl|log|ps|arch|chmod|chown|chflags|ipcs|cat|ls|cp|ln|mv|rm|tar|mkdir|mount|uname|curl|ssh|useradd|groupadd|\./\w+|contrib/\S+)$`)
	return program.MatchString(words[0]) || regexp.MustCompile(`^[a-z][\w./-]*$`).MatchString(words[0]) && strings.HasPrefix(words[1], "-")
}

// TestDocumentedBlocks knows all kinds of blocks that there are, and a test for each that has commands.
func TestDocumentedBlocks(t *testing.T) {
	_, tests := sources(t)
	ways := documentedWays()
	for name, text := range documents(t) {
		for _, b := range blocks(text) {
			switch b.kind {
			case "conf", "output": // the former are read, the latter compared
			case "sh":
				for _, way := range append(b.ways, map[bool][]string{true: {""}}[len(b.ways) == 0]...) {
					if ways[name][way] == "" {
						t.Errorf("%s has a block of the way %q, which no test is said to run:\n%s", name, way, b.text)
					}
				}
			case "text", "json", "yaml":
				for _, line := range commandLines(b.text) {
					if isCommand(line) {
						t.Errorf("%s has a command in a block of the kind %s: %s", name, b.kind, line)
					}
				}
			default:
				t.Errorf("%s has a block of the kind %q, of which no test knows", name, b.kind)
			}
		}
		rest := prose(text)
		if strings.Contains(rest, "```") {
			t.Errorf("%s has a block without an end", name)
		}
		if at := regexp.MustCompile(`(?m)\n\n {4}\S.*`).FindString(rest); at != "" && !strings.HasPrefix(at, "\n\n    (") {
			t.Errorf("%s has a block that is indented, not fenced: %s", name, at)
		}
	}
	for name, of := range ways {
		for way, test := range of {
			if !strings.Contains(tests, "func "+test+"(t *testing.T)") {
				t.Errorf("%s, %q: there is no %s", name, way, test)
			}
		}
	}
}

// inBlocks are the lines of all blocks that some test runs.
func inBlocks(t *testing.T) map[string]bool {
	t.Helper()
	lines := make(map[string]bool)
	for _, text := range documents(t) {
		for _, b := range blocks(text) {
			if b.kind == "sh" && !slices.Contains(b.ways, "checked") {
				for _, line := range commandLines(b.text) {
					lines[line] = true
				}
			}
		}
	}
	return lines
}

// TestDocumentedCommands finds each command outside of the blocks that are run, and must be told what becomes of it.
func TestDocumentedCommands(t *testing.T) {
	run, known := inBlocks(t), inlineCommands()
	unused := maps.Clone(known)
	for name, text := range documents(t) {
		var found []string
		for _, span := range codeSpan.FindAllStringSubmatch(prose(text), -1) {
			found = append(found, span[1])
		}
		for _, b := range blocks(text) {
			if b.kind == "sh" && slices.Contains(b.ways, "checked") {
				found = append(found, commandLines(b.text)...)
			}
		}
		for _, command := range found {
			if !isCommand(command) {
				continue
			}
			delete(unused, command)
			if known[command] == "" && !run[command] {
				t.Errorf("%s has `%s`, of which inlineCommands does not know", name, command)
			}
			if out, err := exec.Command("sh", "-n", "-c", command).CombinedOutput(); err != nil {
				t.Errorf("%s has `%s`: %v: %s", name, command, err, out)
			}
		}
	}
	for command := range unused {
		t.Errorf("no document has `%s` any more", command)
	}
}

// TestDocumentedSources looks up what the commands for the sources are about.
func TestDocumentedSources(t *testing.T) {
	looked := 0
	for command, where := range inlineCommands() {
		if where != inSources {
			continue
		}
		looked++
		words := strings.Fields(command)
		for strings.Contains(words[0], "=") {
			words = words[1:]
		}
		switch words[0] {
		case "make":
			cmd := exec.Command("make", "-n", words[1])
			cmd.Dir = ".."
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", command, err, out)
			}
		case "go":
			lookUpGoTest(t, command, words[2:])
		default:
			t.Errorf("nothing is looked up of %s", command)
		}
	}
	if looked == 0 {
		t.Error("nothing looked up")
	}
}

// lookUpGoTest finds the packages, the tests and the flags that a call of "go test" names.
func lookUpGoTest(t *testing.T, command string, args []string) {
	t.Helper()
	var packages, names, flags []string
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case strings.HasPrefix(arg, "./"):
			packages = append(packages, arg)
		case arg == "-run" || arg == "-fuzz":
			i++
			names = append(names, args[i])
		case arg == "-v" || arg == "-short" || strings.HasPrefix(arg, "-count="):
		default:
			flags = append(flags, strings.TrimPrefix(arg, "-"))
		}
	}
	if len(packages) == 0 {
		return
	}
	cmd := exec.Command("go", append([]string{"list", "-f", "{{.Dir}}"}, packages...)...)
	cmd.Dir = ".."
	dirs, err := cmd.Output()
	if err != nil || len(strings.Fields(string(dirs))) < len(packages) {
		t.Errorf("%s: packages %q, %v", command, dirs, err)
	}
	var tests strings.Builder
	for _, dir := range strings.Fields(string(dirs)) {
		files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
		for _, file := range files {
			text, _ := os.ReadFile(file)
			tests.Write(text)
		}
	}
	for _, name := range names {
		parts := strings.Split(name, "/")
		if n := strings.Count(tests.String(), "\nfunc "+parts[0]+"("); n != 1 {
			t.Errorf("%s: %d tests of that name", command, n)
		}
		if len(parts) == 3 {
			if _, err := os.Stat(filepath.Join("testdata/script", parts[2]+".txtar")); err != nil || !slices.Contains(clientVersions, parts[1]) {
				t.Errorf("%s: %v", command, err)
			}
		}
	}
	for _, flag := range flags {
		if !strings.Contains(tests.String(), `("`+flag+`", `) {
			t.Errorf("%s: there is no flag -%s", command, flag)
		}
	}
}

// documentedFlags are those of nix-daemon(8), each in a call that does nothing if it is understood.
func documentedFlags() map[string][]string {
	return map[string][]string{
		"-daemon": {"--daemon", "--version"}, "-stdio": {"--stdio", "--version"}, "-version": {"--version"},
		"-help": {"--version", "--help"}, "v": {"-v", "--version"}, "-verbose": {"--verbose", "--version"}, "-debug": {"--debug", "--version"},
		"-option": {"--option", "cores", "1", "--version"}, "-setting": {"--cores", "1", "--version"}, "-no-setting": {"--no-keep-outputs", "--version"},
		"-force-trusted":      {"--extra-experimental-features", "daemon-trust-override", "--force-trusted", "--version"},
		"-force-untrusted":    {"--extra-experimental-features", "daemon-trust-override", "--force-untrusted", "--version"},
		"-default-trust":      {"--extra-experimental-features", "daemon-trust-override", "--default-trust", "--version"},
		"-check-installation": {"--check-installation"},
		"-json":               {"status", "--json", "--help"}, "-watch": {"status", "--watch", "--help"},
		"-follow": {"log", "--follow", "--help"}, "f": {"log", "-f", "--help"},
		"-release-cgroups": {}, // by TestVirtualMachine: here it would take controllers from whoever runs the tests
		"-serve":           {"--serve", "--version"}, "-write": {"--serve", "--write", "--version"},
	}
}

// TestDocumentedFlags has the program understand each flag of its manual.
func TestDocumentedFlags(t *testing.T) {
	requireClients(t)
	text, err := os.ReadFile("../contrib/man/nix-daemon.8")
	if err != nil {
		t.Fatal(err)
	}
	s := newScratch(t)
	store := s.path("nix-store") // the name under which it serves
	if err := os.Symlink(shared.daemon.path, store); err != nil {
		t.Fatal(err)
	}
	calls, found := documentedFlags(), manualFlags(string(text))
	for flag := range found {
		call := calls[flag]
		if call == nil {
			t.Errorf("the manual has the flag %q, of which documentedFlags does not know", flag)
			continue
		}
		if len(call) == 0 {
			continue
		}
		program := shared.daemon.path
		if call[0] == "--serve" {
			program = store
		}
		cmd := exec.Command(program, call...)
		cmd.Env = s.daemonEnv(shared.daemon)
		if out, err := cmd.CombinedOutput(); strings.Contains(string(out), "flag '") || err != nil && flag != "-check-installation" {
			t.Errorf("%q: %v: %s", call, err, out)
		}
	}
	for flag := range calls {
		if !found[flag] {
			t.Errorf("the manual has no flag %q any more", flag)
		}
	}
}

// manualFlags are the arguments of the macro Fl; one that goes on with an argument's name has that in its name.
func manualFlags(page string) map[string]bool {
	found := make(map[string]bool)
	for _, line := range regexp.MustCompile(`(?m)^\..*\bFl (.*)$`).FindAllStringSubmatch(page, -1) {
		var last string
		for _, word := range strings.Fields(line[1]) {
			if word == "Ns" {
				delete(found, last)
				found[last+"setting"] = true
			}
			if word == "Ns" || word == "Ar" || word == "Cm" || word == "Op" {
				break
			}
			if strings.HasPrefix(word, "-") || word == "v" || word == "f" {
				last, found[word] = word, true
			}
		}
	}
	return found
}
