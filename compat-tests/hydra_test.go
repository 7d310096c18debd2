package compat

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newestServe is the last minor version of the serve protocol that anybody
// speaks, after 2.1.
const newestServe = 8

// TestServeVersions speaks each version of the serve protocol as Hydra's queue
// runner does, with encodings of its own: the inputs are imported, derivations
// sent and built, outputs fetched. What our program answers as "nix-store" is
// what upstream's answers, and in the versions that they know what those of
// earlier releases answer.
func TestServeVersions(t *testing.T) {
	clients := requireClients(t)
	s := newScratch(t)
	reference := clients[len(clients)-1]
	jobs := makeHydraJobs(t, s, reference)
	run := func(t *testing.T, p program, oldest, newest int) (notes [][]string, state []string) {
		t.Helper()
		s.empty(t)
		s.create(t)
		for minor := oldest; minor <= newest; minor++ {
			notes = append(notes, talkAsHydra(t, s, p, "", minor, func(h *hydra) { h.converse(jobs[minor-1]) }))
		}
		if err := s.awaitQuiet(); err != nil {
			t.Error(err)
		}
		state = s.state(t)
		s.verify(t, reference)
		return notes, state
	}
	ours := program{path: filepath.Join(t.TempDir(), "nix-store"), env: shared.daemon.env}
	if err := os.Symlink(shared.daemon.path, ours.path); err != nil {
		t.Fatal(err)
	}
	got, gotState := run(t, ours, 1, newestServe)
	want, wantState := run(t, reference.program("nix-store"), 1, newestServe)
	for i := range want {
		if diff := cmp.Diff(without(measured, want[i]), without(measured, got[i])); diff != "" {
			t.Errorf("2.%d (-reference +ours):\n%s", i+1, diff)
		}
	}
	if diff := cmp.Diff(wantState, gotState); diff != "" {
		t.Errorf("left behind (-reference +ours):\n%s", diff)
	}
	// 2.8.0 sends the outputs in versions that have none, which no client of these can read.
	for release, versions := range map[string][2]int{"2.3.7": {1, 5}, "2.8.0": {6, 7}, "2.26.3": {6, 7}} {
		i := slices.IndexFunc(clients, func(c client) bool { return c.version == release })
		old, _ := run(t, clients[i].program("nix-store"), versions[0], versions[1])
		for i := range old {
			minor := versions[0] + i
			if diff := cmp.Diff(without(words, old[i]), without(words, got[minor-1])); diff != "" {
				t.Errorf("2.%d (-%s +ours):\n%s", minor, release, diff)
			}
		}
	}
}

// Kinds of notes that are not for everybody.
const (
	// words are texts that releases put differently.
	words = "in words: "
	// measured is how often and when something was built, which the reference
	// does not tell: it says 0 of everything.
	measured = "measured: "
)

func without(kind string, notes []string) []string {
	return slices.DeleteFunc(slices.Clone(notes), func(n string) bool { return strings.HasPrefix(n, kind) })
}

// hydraJob is a derivation as the queue runner knows it.
type hydraJob struct {
	drv     string
	outputs []string // names
	paths   []string // of the outputs
	sources []string
	args    []string
	env     [][2]string
}

// hydraJobs are those of one version.
type hydraJobs struct {
	export                    []byte // all that follows but extra, with what it needs
	leaf                      string
	good, fails, loud, silent hydraJob

	// extra is a path that is sent by AddToStoreNar.
	extra, extraCA string
	extraNAR       []byte
}

// makeHydraJobs makes them in a store that is not needed afterwards.
func makeHydraJobs(t *testing.T, s scratch, c client) []hydraJobs {
	t.Helper()
	nix := func(args ...string) []byte {
		t.Helper()
		p := c.program(args[0])
		cmd := exec.Command(p.path, args[1:]...)
		cmd.Env = append(s.clientEnv(c), directEnv...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, stderr.String())
		}
		return out
	}
	line := func(args ...string) string { return strings.TrimSpace(string(nix(args...))) }
	add := func(name, text string) string {
		file := s.path("tmp", name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return line("nix-store", "--add", file)
	}
	var all []hydraJobs
	for minor := 1; minor <= newestServe; minor++ {
		leaf := add(fmt.Sprint("leaf-", minor), "leafy\n")
		job := func(name, script string, outputs ...string) hydraJob {
			name += "-" + strconv.Itoa(minor)
			j := hydraJob{outputs: outputs, sources: []string{leaf}, args: []string{"-ec", script}}
			j.env = [][2]string{{"PATH", "/usr/bin:/bin"}, {"builder", "/bin/sh"}, {"leaf", leaf}, {"name", name},
				{"outputs", strings.Join(outputs, " ")}, {"system", hydraSystem}}
			j.drv = line("nix-instantiate", "-E", fmt.Sprintf(`derivation { name = %q; system = %q; builder = "/bin/sh"; args = [ "-ec" %q ]; `+
				`PATH = "/usr/bin:/bin"; leaf = builtins.storePath %q; outputs = [ "%s" ]; }`, name, hydraSystem, script, leaf, strings.Join(outputs, `" "`)))
			j.drv, _, _ = strings.Cut(j.drv, "!")
			for _, output := range outputs {
				p := line("nix-store", "-q", "--binding", output, j.drv)
				j.paths = append(j.paths, p)
				j.env = append(j.env, [2]string{output, p})
			}
			slices.SortFunc(j.env, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
			return j
		}
		j := hydraJobs{
			leaf:   leaf,
			good:   job("good", "echo good says hello; read x < $leaf; echo $x > $out; echo $out > $dev", "dev", "out"),
			fails:  job("fails", "echo failing; exit 3", "out"),
			loud:   job("loud", "i=0; while [ $i -lt 2000 ]; do echo "+loudly+" $i; i=$((i+1)); done; echo > $out", "out"),
			silent: job("silent", "exec sleep 10000", "out"),
		}
		j.extra = add(fmt.Sprint("extra-", minor), "some more")
		j.extraCA = "fixed:r:" + line("nix-store", "-q", "--hash", j.extra)
		j.extraNAR = nix("nix-store", "--dump", j.extra)
		j.export = nix("nix-store", "--export", leaf, j.good.drv, j.fails.drv, j.loud.drv, j.silent.drv)
		all = append(all, j)
	}
	return all
}

// loudly begins what a builder says that says too much.
const loudly = "this is one line of many:"

// hydraSystem is that of the clients, which Debian has for this one alone.
const hydraSystem = "x86_64-linux"

// hydra is one conversation.
type hydra struct {
	*testing.T
	in      io.WriteCloser
	out     *bufio.Reader
	request bytes.Buffer
	version int // that was agreed on
	notes   []string
}

// talkAsHydra has a conversation in a version that is offered, and gives what
// the server did.
func talkAsHydra(t *testing.T, s scratch, p program, user string, minor int, converse func(*hydra)) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	argv := servingArgs(t, s, p, user, "--write")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = s.daemonEnv(p)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it has been waited for, unless the test fails
		if t.Failed() {
			t.Logf("%s 2.%d:\n%s", p.path, minor, stderr.String())
		}
	}()
	h := &hydra{T: t, in: in, out: bufio.NewReader(out)}
	h.greet(minor)
	converse(h)
	in.Close()
	rest, err := io.ReadAll(h.out)
	h.note("at the end %q %v, status %v", rest, err, cmd.Wait())
	for _, line := range normaliseLines(stderr.String()) {
		if strings.HasPrefix(line, loudly) {
			continue // as many as the pipe had before the builder was killed
		}
		h.note(words+"said %q", line)
	}
	return h.notes
}

// servingArgs have nix-store serve, started by one of the accounts; "" is whoever
// tests.
func servingArgs(t *testing.T, s scratch, p program, user string, more ...string) []string {
	t.Helper()
	argv := append([]string{p.path, "--serve"}, more...)
	if user == "" {
		return argv
	}
	uid, gid, err := account(user)
	home := s.path("home-" + user)
	if err = errors.Join(err, os.MkdirAll(home, 0o700), os.Chown(home, uid, gid)); err != nil {
		t.Fatal(err)
	}
	argv, err = asUser(user, append([]string{"env", "HOME=" + home, "USER=" + user}, argv...))
	if err != nil {
		t.Fatal(err)
	}
	return argv
}

func (h *hydra) note(format string, args ...any) {
	h.notes = append(h.notes, fmt.Sprintf(format, args...))
}

func (h *hydra) number(n uint64) { binary.Write(&h.request, binary.LittleEndian, n) }

func (h *hydra) text(texts ...string) {
	for _, text := range texts {
		h.number(uint64(len(text)))
		h.request.WriteString(text)
		h.request.Write(make([]byte, -len(text)&7))
	}
}

func (h *hydra) list(texts []string) {
	h.number(uint64(len(texts)))
	h.text(texts...)
}

func (h *hydra) flag(set bool) {
	if set {
		h.number(1)
	} else {
		h.number(0)
	}
}

// send ends a request.
func (h *hydra) send() {
	h.Helper()
	if _, err := h.in.Write(h.request.Bytes()); err != nil {
		h.Fatal(err)
	}
	h.request.Reset()
}

func (h *hydra) bytes(n uint64) []byte {
	h.Helper()
	if n > 1<<20 {
		h.Fatalf("an answer of %d bytes, after %q", n, h.notes)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(h.out, data); err != nil {
		h.Fatalf("%v, after %q", err, h.notes)
	}
	return data
}

func (h *hydra) readNumber() uint64 {
	h.Helper()
	return binary.LittleEndian.Uint64(h.bytes(8))
}

func (h *hydra) readText() string {
	h.Helper()
	n := h.readNumber()
	return string(h.bytes(n + -n&7)[:n])
}

func (h *hydra) readList() []string {
	h.Helper()
	list := make([]string, min(h.readNumber(), 1<<20))
	for i := range list {
		list[i] = h.readText()
	}
	return list
}

func (h *hydra) greet(minor int) {
	h.Helper()
	h.number(0x390c9deb)
	h.number(2<<8 | uint64(minor))
	h.send()
	h.note("magic %x", h.readNumber())
	server := h.readNumber()
	if server>>8 != 2 {
		h.Fatalf("version %x", server)
	}
	h.version = min(minor, int(server&0xff))
}

// converse does what the queue runner does for a step, and what can go wrong.
func (h *hydra) converse(j hydraJobs) {
	h.Helper()
	h.step(j)
	h.limits(j)
	h.more(j)
}

func (h *hydra) step(j hydraJobs) {
	h.Helper()
	closure := []string{j.leaf, j.good.drv, j.fails.drv, j.loud.drv, j.silent.drv}
	slices.Sort(closure)
	h.validPaths(true, false, closure)
	h.number(4) // ImportPaths
	h.request.Write(j.export)
	h.send()
	h.note("imported %d", h.readNumber())
	h.validPaths(true, true, append([]string{filepath.Dir(j.leaf) + "/00000000000000000000000000000000-gone"}, closure...))
	sizes := h.pathInfos(closure)
	for _, outputs := range []bool{false, true} {
		h.closure(outputs, j.good.drv)
	}
	h.dump(j.leaf, sizes[j.leaf])

	h.build("good", j.good, hydraOptions{})
	h.dump(j.good.paths[1], h.pathInfos(slices.Sorted(slices.Values(j.good.paths)))[j.good.paths[1]])
	h.closure(true, j.good.drv)
	h.build("again", j.good, hydraOptions{})
	h.build("fails", j.fails, hydraOptions{})
}

// more is what it does besides.
func (h *hydra) more(j hydraJobs) {
	h.Helper()
	h.add(j)
	h.buildPaths(j.good.drv+"!out,dev", j.leaf)
	h.buildPaths(j.fails.drv)
}

// limits has builds that are ended or leave something behind, as the options say.
func (h *hydra) limits(j hydraJobs) {
	h.Helper()
	if h.version >= 2 { // before, nobody can say how long a log may be
		h.build("loud", j.loud, hydraOptions{logSize: 1000})
	}
	if h.version == 1 {
		h.build("silent", j.silent, hydraOptions{silence: 1})
	}
	if h.version >= 7 {
		h.build("kept", j.fails, hydraOptions{keep: true})
	}
}

func (h *hydra) validPaths(lock, substitute bool, paths []string) {
	h.Helper()
	h.number(1)
	h.flag(lock)
	h.flag(substitute)
	h.list(paths)
	h.send()
	h.note("valid %q", h.readList())
}

// pathInfos gives the sizes of archives.
func (h *hydra) pathInfos(paths []string) map[string]uint64 {
	h.Helper()
	h.number(2)
	h.list(paths)
	h.send()
	sizes := make(map[string]uint64)
	for {
		p := h.readText()
		if p == "" {
			return sizes
		}
		h.note("%s deriver %q references %q", p, h.readText(), h.readList())
		download := h.readNumber()
		sizes[p] = h.readNumber()
		h.note("download %v, archive %d", download == sizes[p], sizes[p])
		if h.version >= 4 {
			h.note("hash %s content %q signatures %q", h.readText(), h.readText(), h.readList())
		}
	}
}

func (h *hydra) closure(outputs bool, path string) {
	h.Helper()
	h.number(7)
	h.flag(outputs)
	h.list([]string{path})
	h.send()
	h.note("closure %v %q", outputs, h.readList())
}

func (h *hydra) dump(path string, size uint64) {
	h.Helper()
	h.number(3)
	h.text(path)
	h.send()
	h.note("archive %q", h.bytes(size))
}

// hydraOptions are settings of a build.
type hydraOptions struct {
	silence, logSize uint64
	keep             bool
}

func (h *hydra) options(o hydraOptions) {
	h.number(o.silence)
	h.number(0) // build time
	if h.version >= 2 {
		h.number(o.logSize)
	}
	if h.version >= 3 {
		h.number(0)   // repeats
		h.flag(false) // enforce determinism
	}
	if h.version >= 7 {
		h.flag(o.keep)
	}
}

func (h *hydra) build(what string, j hydraJob, o hydraOptions) {
	h.Helper()
	h.askBuild(j, o)
	h.send()
	status := h.readNumber()
	h.note("%s: status %d", what, status)
	h.note(words+"%s", strings.Join(normaliseLines(h.readText()), "\n"))
	if h.version >= 3 {
		times, differs, begun, ended := h.readNumber(), h.readNumber(), h.readNumber(), h.readNumber()
		h.note("differs %d", differs)
		if status == 0 {
			h.note(measured+"%d times, times known %v, in order %v", times, begun != 0 && ended != 0, begun <= ended)
		}
	}
	if h.version >= 6 {
		h.builtOutputs()
	}
}

func (h *hydra) askBuild(j hydraJob, o hydraOptions) {
	h.number(8)
	h.text(j.drv)
	h.number(uint64(len(j.outputs)))
	for i, name := range j.outputs {
		h.text(name, j.paths[i], "", "")
	}
	h.list(j.sources)
	h.text(hydraSystem, "/bin/sh")
	h.list(j.args)
	h.number(uint64(len(j.env)))
	for _, pair := range j.env {
		h.text(pair[0], pair[1])
	}
	h.options(o)
}

// builtOutputs notes names and paths, which stand there in two ways.
func (h *hydra) builtOutputs() {
	h.Helper()
	var built []string
	for range min(h.readNumber(), 1000) {
		if h.version >= 8 {
			built = append(built, h.readText()+" "+filepath.Base(h.readText())+fmt.Sprintf(" %q", h.readList()))
			continue
		}
		_, name, _ := strings.Cut(h.readText(), "!")
		var realisation struct {
			OutPath    string
			Signatures []string
		}
		if err := json.Unmarshal([]byte(h.readText()), &realisation); err != nil {
			h.Fatal(err)
		}
		built = append(built, fmt.Sprintf("%s %s %q", name, filepath.Base(realisation.OutPath), realisation.Signatures))
	}
	slices.Sort(built)
	h.note("outputs %q", built)
}

func (h *hydra) add(j hydraJobs) {
	h.Helper()
	h.askAdd(j, j.extraCA)
	h.send()
	h.note("added %d", h.readNumber())
	h.pathInfos([]string{j.extra})
}

func (h *hydra) askAdd(j hydraJobs, ca string) {
	hash := sha256.Sum256(j.extraNAR)
	h.number(9)
	h.text(j.extra, "", hex.EncodeToString(hash[:]))
	h.list(nil)
	h.number(1e9)
	h.number(uint64(len(j.extraNAR)))
	h.flag(false)
	h.list(nil)
	h.text(ca)
	h.request.Write(j.extraNAR)
}

func (h *hydra) buildPaths(paths ...string) {
	h.Helper()
	h.number(6)
	h.list(paths)
	h.options(hydraOptions{})
	h.send()
	status := h.readNumber()
	h.note("made: %d", status)
	if status != 0 {
		h.note(words+"%s", strings.Join(normaliseLines(h.readText()), "\n"))
	}
}

// ending is what ends a conversation.
type ending struct {
	name string
	args []string
	ask  func(h *hydra)
	// waits is for what a client that goes would end in another way.
	waits bool
}

// endings are refused whoever asks, or for want of "--write".
func endings(gone string) []ending {
	return []ending{
		{name: "import", ask: func(h *hydra) { h.number(4); h.number(0) }},
		{name: "build", ask: func(h *hydra) { h.number(6); h.list(nil); h.number(0) }},
		{name: "derivation", ask: func(h *hydra) { h.number(8); h.text(gone + ".drv") }},
		{name: "add", ask: func(h *hydra) { h.number(9); h.text(gone) }},
		{name: "locked all the same", ask: func(h *hydra) { h.number(1); h.flag(true); h.flag(true); h.list([]string{gone}) }},
		{name: "repeats", args: []string{"--write"}, ask: func(h *hydra) {
			h.number(6)
			h.list(nil)
			for _, n := range []uint64{0, 0, 0, 1, 0, 0} {
				h.number(n)
			}
		}},
		{name: "no path", ask: func(h *hydra) { h.number(3); h.text(gone) }},
		{name: "not in the store", ask: func(h *hydra) { h.number(3); h.text("/etc/passwd") }},
		{name: "infos", ask: func(h *hydra) { h.number(2); h.list([]string{gone}) }},
		{name: "closure", ask: func(h *hydra) { h.number(7); h.flag(false); h.list([]string{gone}) }},
		{name: "unknown", ask: func(h *hydra) { h.number(5) }},
		{name: "bad import", args: []string{"--write"}, ask: func(h *hydra) { h.number(4); h.number(7) }},
		{name: "truncated", args: []string{"--write"}, ask: func(h *hydra) { h.number(1); h.number(0) }},
	}
}

// answer is what the other end sees of it, and what is said.
func (e ending) answer(t *testing.T, s scratch, p program, user string) string {
	t.Helper()
	h := &hydra{T: t, version: 7}
	h.number(0x390c9deb)
	h.number(2<<8 | uint64(h.version))
	e.ask(h)
	argv := servingArgs(t, s, p, user, e.args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = s.daemonEnv(p)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.in = in
	h.send()
	if !e.waits {
		in.Close()
	}
	err = cmd.Wait()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatal(err)
	}
	if stdout.Len() < 16 {
		t.Fatalf("not even a greeting: %s", stderr.String())
	}
	return fmt.Sprintf("%q %v\n%s", stdout.Bytes()[16:], err, strings.Join(normaliseLines(stderr.String()), "\n"))
}

// TestServeEnds asks for what ends a conversation of the serve protocol: the
// other end sees nothing more, and standard error says why.
func TestServeEnds(t *testing.T) {
	clients := requireClients(t)
	s := newScratch(t)
	reference := clients[len(clients)-1]
	ours := program{path: filepath.Join(t.TempDir(), "nix-store"), env: shared.daemon.env}
	if err := os.Symlink(shared.daemon.path, ours.path); err != nil {
		t.Fatal(err)
	}
	for _, e := range endings(s.path("store/00000000000000000000000000000000-gone")) {
		t.Run(e.name, func(t *testing.T) {
			want, got := e.answer(t, s, reference.program("nix-store"), ""), e.answer(t, s, ours, "")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-reference +ours):\n%s", diff)
			}
		})
	}
}
