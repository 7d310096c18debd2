package daemon

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// rawDaemon is a daemon that serves one client after the other on standard input and output.
type rawDaemon struct {
	program string
	root    string
}

func newRawDaemon(t *testing.T, program, root string) *rawDaemon {
	t.Helper()
	d := &rawDaemon{program, root}
	t.Cleanup(d.remove)
	conf := "sandbox = false\nbuild-users-group =\nsubstituters =\nexperimental-features = nix-command ca-derivations daemon-trust-override\n"
	for _, name := range []string{"etc", "var"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root+"/etc/nix.conf", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *rawDaemon) remove() {
	filepath.WalkDir(d.root, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	os.RemoveAll(d.root)
}

func (d *rawDaemon) dir() storepath.Dir { return storepath.Dir(d.root + "/store") }

// said is what the daemon says to a request: its frames as lines, without numbers of activities and the root.
func (d *rawDaemon) said(t *testing.T, minor uint8, request func(*protocol.Writer), args ...string) []string {
	t.Helper()
	cmd := exec.Command(d.program, append([]string{"--stdio"}, args...)...)
	cmd.Env = append(os.Environ(), "NIX_STORE_DIR="+d.root+"/store", "NIX_STATE_DIR="+d.root+"/var", "NIX_LOG_DIR="+d.root+"/log",
		"NIX_LOCALSTATE_DIR="+d.root+"/localstate", "NIX_CONF_DIR="+d.root+"/etc", "HOME="+d.root, "NIX_REMOTE=")
	var script bytes.Buffer
	v := protocol.Version{Number: protocol.Minor(minor)}
	hello := wire.NewWriter(&script)
	for _, n := range []uint64{0x6e697863, uint64(v.Number)} {
		hello.Uint64(n)
	}
	hello.Uint64(0)
	hello.Uint64(0)
	hello.Flush()
	to := protocol.NewWriter(wire.NewWriter(&script), d.dir(), v)
	request(to)
	to.Flush()
	stdin, err := cmd.StdinPipe() // open until the answer is there: upstream takes its end for a hang-up
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hang := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	stdin.Write(script.Bytes()) // may end early
	lines := d.frames(t, v, stdout)
	stdin.Close()
	cmd.Wait() // some requests end it with a status
	hang.Stop()
	return lines
}

func (d *rawDaemon) frames(t *testing.T, v protocol.Version, out io.Reader) []string {
	t.Helper()
	in := wire.NewReader(out)
	for range 2 {
		in.Uint64()
	}
	r := protocol.NewReader(in, d.dir(), v)
	if v.AtLeast(33) {
		r.Text()
	}
	if v.AtLeast(35) {
		r.Uint64()
	}
	var lines frameLines
	for last := 0; ; {
		tag, err := r.Frame()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch tag {
		case protocol.FrameLast:
			if last++; last == 2 {
				return d.plain(append(lines, "last"))
			}
			continue
		case protocol.FrameError:
			e, err := r.Error()
			if err != nil {
				t.Fatal(err)
			}
			return d.plain(append(lines, fmt.Sprintf("error %d %q %q", e.Status, e.Message, e.Traces)))
		}
		if known, err := r.Tell(tag, &lines); err != nil || !known {
			t.Fatalf("frame %x: %v", uint64(tag), err)
		}
	}
	return d.plain(append(lines, "end"))
}

func (d *rawDaemon) plain(lines []string) []string {
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], d.root, "ROOT")
	}
	return lines
}

// frameLines is a sink that keeps what it is told as text.
type frameLines []string

func (l *frameLines) Message(_ activity.Level, text string) {
	*l = append(*l, fmt.Sprintf("message %q", text))
}

func (l *frameLines) Start(_ activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, _ activity.ID) {
	*l = append(*l, fmt.Sprintf("start %d %d %q %v", level, kind, text, fields))
}

func (l *frameLines) Stop(activity.ID) { *l = append(*l, "stop") }

func (l *frameLines) Result(_ activity.ID, kind activity.ResultType, fields []activity.Field) {
	*l = append(*l, fmt.Sprintf("result %d %v", kind, fields))
}

type rawCase struct {
	name    string
	request func(d *rawDaemon, to *protocol.Writer)
	args    []string
	// differs says why ours says something else.
	differs string
	// unordered lines come in any order.
	unordered bool
}

const gone = "00000000000000000000000000000000-gone"

func op(o protocol.Op, texts ...string) func(d *rawDaemon, to *protocol.Writer) {
	return func(d *rawDaemon, to *protocol.Writer) {
		to.Op(o)
		for _, text := range texts {
			to.String(strings.ReplaceAll(text, "STORE", string(d.dir())))
		}
	}
}

func someText(d *rawDaemon, to *protocol.Writer) {
	to.Op(protocol.OpAddTextToStore)
	to.AddText(protocol.AddTextRequest{Name: "text", Text: "contents"})
}

func rawCases() []rawCase {
	var cases []rawCase
	add := func(name string, request func(d *rawDaemon, to *protocol.Writer), args ...string) {
		cases = append(cases, rawCase{name: name, request: request, args: args})
	}
	add("text", someText)
	add("no request", func(_ *rawDaemon, to *protocol.Writer) { to.Op(99) })
	add("bad op", func(_ *rawDaemon, to *protocol.Writer) { to.Op(1 << 40) })
	for _, o := range []protocol.Op{protocol.OpIsValidPath, protocol.OpQueryPathInfo, protocol.OpQueryReferrers,
		protocol.OpEnsurePath, protocol.OpAddTempRoot, protocol.OpQueryDerivationOutputMap, protocol.OpQueryValidDerivers,
	} {
		for _, p := range []string{"STORE/" + gone, "STORE/" + gone + ".drv", "", "/", "STORE", "STORE/short", "/elsewhere/" + gone,
			"STORE/" + gone + "/sub", "STORE/00000000000000000000000000000000-", "STORE/00000000000000000000000000000000-.",
			"STORE/00000000000000000000000000000000-a!b", "STORE/e0000000000000000000000000000000-x", "relative",
			"STORE/00000000000000000000000000000000-" + strings.Repeat("x", 212), "STORE/00000000000000000000000000000000-..-x"} {
			name := p
			if len(name) > 60 {
				name = name[:60]
			}
			add(fmt.Sprintf("%v %s", o, name), op(o, p))
		}
	}
	for _, s := range []string{"", "x", "00000000000000000000000000000000"} {
		add("hash part "+s, op(protocol.OpQueryPathFromHashPart, s))
	}
	for _, s := range []string{"x", "sha256:x!out", "sha256:0000000000000000000000000000000000000000000000000000!out", "out", "sha999:00!out", "sha256:zz!out"} {
		add("realisation "+s, op(protocol.OpQueryRealisation, s))
	}
	derived := func(text string) func(d *rawDaemon, to *protocol.Writer) {
		return func(d *rawDaemon, to *protocol.Writer) {
			to.Op(protocol.OpBuildPaths)
			to.Uint64(1)
			to.String(strings.ReplaceAll(text, "STORE", string(d.dir())))
			to.Uint64(0)
		}
	}
	for _, p := range []string{"STORE/" + gone, "STORE/" + gone + ".drv!out", "STORE/" + gone + ".drv!*", "STORE/" + gone + "!out",
		"STORE/" + gone + ".drv!", "x!out", "STORE/" + gone + ".drv!a!b", "STORE/" + gone + ".drv!a b"} {
		add("build "+p, derived(p))
	}
	add("build mode", func(d *rawDaemon, to *protocol.Writer) {
		to.Op(protocol.OpBuildPaths)
		to.Uint64(0)
		to.Uint64(7)
	})
	for _, m := range []string{"fixed:sha256", "text:sha1", "text:sha256", "fixed:r:sha999", "fixed:git:md5", "fixed:git:sha1", "x", "fixed:x:sha256", "text:r:sha256", "fixed:blake3", ""} {
		add("add "+m, func(d *rawDaemon, to *protocol.Writer) {
			to.Op(protocol.OpAddToStore)
			to.String("name")
			to.String(m)
			to.Uint64(0)
			to.Uint64(0)
			to.Uint64(0)
		})
	}
	for _, n := range []string{"", ".", "..", ".x", "a/b", "a b", strings.Repeat("x", 212)} {
		add("add named "+n[:min(len(n), 20)], func(d *rawDaemon, to *protocol.Writer) {
			to.Op(protocol.OpAddTextToStore)
			to.String(n)
			to.String("text")
			to.Uint64(0)
		})
	}
	info := func(path, deriver, hash string, size uint64, ca string, sigs ...string) func(d *rawDaemon, to *protocol.Writer) {
		return func(d *rawDaemon, to *protocol.Writer) {
			to.Op(protocol.OpAddToStoreNar)
			to.String(strings.ReplaceAll(path, "STORE", string(d.dir())))
			to.String(strings.ReplaceAll(deriver, "STORE", string(d.dir())))
			to.String(hash)
			to.Uint64(0)
			to.Uint64(0)
			to.Uint64(size)
			to.Uint64(0)
			to.Uint64(uint64(len(sigs)))
			for _, s := range sigs {
				to.String(s)
			}
			to.String(ca)
			to.Uint64(0)
			to.Uint64(1)
			archive := string(nartest.File(""))
			to.Uint64(uint64(len(archive)))
			to.WriteString(archive)
			to.Uint64(0)
		}
	}
	sum := nixhash.Of(nixhash.SHA256, string(nartest.File(""))).Base16()
	zero := strings.Repeat("0", 64)
	right := uint64(len(string(nartest.File(""))))
	add("nar", info("STORE/"+gone, "", sum, right, ""))
	add("nar hash mismatch", info("STORE/"+gone+"1", "", zero, right, ""))
	add("nar size mismatch", info("STORE/"+gone+"1", "", sum, right+8, ""))
	add("nar bad hash", info("STORE/"+gone+"1", "", "xyz", right, ""))
	add("nar bad deriver", info("STORE/"+gone+"1", "/x", sum, right, ""))
	for _, ca := range []string{"x", "x:y", "fixed:sha256", "fixed:r:sha256:0", "text:sha1:" + strings.Repeat("0", 40), "fixed:r:sha256:" + zero,
		"fixed:r:sha256:" + strings.Repeat("0", 52), "text:sha256:" + strings.Repeat("0", 52), "fixed:git:sha256:" + strings.Repeat("0", 52)} {
		add("nar ca "+ca[:min(len(ca), 30)], info("STORE/"+gone+"1", "", sum, right, ca))
	}
	add("nar bad signature", info("STORE/"+gone+"1", "", sum, right, "", "nosig"))
	add("nar bad signature base64", info("STORE/"+gone+"1", "", sum, right, "", "k:!!!"))
	cases[len(cases)-1].differs = "upstream's has half an escape sequence for the character"
	add("nar untrusted", info("STORE/"+gone+"1", "", sum, right, ""), "--force-untrusted")
	for _, a := range []string{
		"bad", "nix-archive-1|(|kind|x", "nix-archive-1|[", "nix-archive-1|(|type|socket|)", "nix-archive-1|(|type|regular|x|)",
		"nix-archive-1|(|type|regular|executable|x", "nix-archive-1|(|type|symlink|x", "nix-archive-1|(|type|directory|x",
		"nix-archive-1|(|type|directory|entry|(|name||node|(|type|regular|contents||)|)|)",
		"nix-archive-1|(|type|directory|entry|(|name|..|node|(|type|regular|contents||)|)|)",
		"nix-archive-1|(|type|directory|entry|(|name|a/b|node|(|type|regular|contents||)|)|)",
		"nix-archive-1|(|type|directory|entry|(|name|b|node|(|type|regular|contents||)|)|entry|(|name|a|node|(|type|regular|contents||)|)|)",
		"nix-archive-1|(|type|directory|entry|(|node|(|type|regular|contents||)|)|)",
	} {
		add("archive "+a, func(d *rawDaemon, to *protocol.Writer) {
			to.Op(protocol.OpAddToStore)
			to.String("name")
			to.String("fixed:r:sha256")
			to.Uint64(0)
			to.Uint64(0)
			var b bytes.Buffer
			w := wire.NewWriter(&b)
			for _, s := range strings.Split(a, "|") {
				w.String(s)
			}
			w.Flush()
			to.Uint64(uint64(b.Len()))
			to.WriteString(b.String())
			to.Uint64(0)
		})
	}
	gc := func(action uint64, ignore bool, paths ...string) func(d *rawDaemon, to *protocol.Writer) {
		return func(d *rawDaemon, to *protocol.Writer) {
			to.Op(protocol.OpCollectGarbage)
			to.Uint64(action)
			to.Uint64(uint64(len(paths)))
			for _, p := range paths {
				to.String(strings.ReplaceAll(p, "STORE", string(d.dir())))
			}
			to.Bool(ignore)
			for range 4 {
				to.Uint64(0)
			}
		}
	}
	add("gc action", gc(9, false))
	add("gc ignore", gc(2, true))
	add("gc specific invalid", gc(3, false, "STORE/"+gone+"2"))
	add("gc nothing", gc(2, false))
	add("indirect root", op(protocol.OpAddIndirectRoot, "/nonexistent/x"))
	add("perm root", op(protocol.OpAddPermRoot, "STORE/"+gone, "STORE/../x"))
	add("perm root in store", op(protocol.OpAddPermRoot, "STORE/"+gone, "STORE/x"))
	add("perm root untrusted", op(protocol.OpAddPermRoot, "STORE/"+gone, "STORE/../x"), "--force-untrusted")
	add("nar from", op(protocol.OpNarFromPath, "STORE/"+gone+"3"))
	cases[len(cases)-1].differs = "upstream hangs up after that"
	add("build log bad", op(protocol.OpAddBuildLog, "x"))
	add("build log no drv", func(d *rawDaemon, to *protocol.Writer) {
		op(protocol.OpAddBuildLog, gone)(d, to)
		to.Uint64(0)
	})
	add("signatures", func(d *rawDaemon, to *protocol.Writer) {
		to.Op(protocol.OpAddSignatures)
		to.String(string(d.dir()) + "/" + gone + "4")
		to.Strings([]string{"k:AAAA"})
	})
	add("sync", op(protocol.OpSyncWithGC))
	add("verify", func(d *rawDaemon, to *protocol.Writer) {
		to.Op(protocol.OpVerifyStore)
		to.Bool(true)
		to.Bool(false)
	})
	add("verify repair untrusted", func(d *rawDaemon, to *protocol.Writer) {
		to.Op(protocol.OpVerifyStore)
		to.Bool(true)
		to.Bool(true)
	}, "--force-untrusted")
	add("optimise", op(protocol.OpOptimiseStore))
	cases[len(cases)-1].unordered = true
	options := func(pairs ...string) func(d *rawDaemon, to *protocol.Writer) {
		return func(d *rawDaemon, to *protocol.Writer) {
			to.Op(protocol.OpSetOptions)
			for _, n := range []uint64{0, 0, 0, 3, 1, 0, 1, 0, 0, 0, 0, 1} {
				to.Uint64(n)
			}
			to.Uint64(uint64(len(pairs) / 2))
			for _, s := range pairs {
				to.String(s)
			}
		}
	}
	for _, nv := range [][2]string{{"timeout", "x"}, {"keep-going", "maybe"}, {"sandbox", "perhaps"}, {"min-free", "12Q"}, {"cores", "-1"}, {"nonsense", "1"},
		{"substituters", "::"}, {"sandbox-paths", "a=b=c"}, {"log-lines", "99999999999999999999999"}, {"experimental-features", "nonsense"},
		{"extra-experimental-features", "x"}, {"max-jobs", "many"}, {"diff-hook", "relative"}, {"impure-env", "x=y"}, {"external-builders", "x"},
		{"trusted-users", "a"}, {"plugin-files", "x"}, {"builders", "x"}, {"system-features", "a"}, {"extra-sandbox-paths", "/x=/y"},
		{"sandbox-build-dir", "rel"}, {"auto-allocate-uids", "true"}, {"use-cgroups", "true"}, {"store", "bad store"}} {
		add("set "+nv[0]+"="+nv[1], options(nv[0], nv[1]))
		if nv[0] == "external-builders" {
			cases[len(cases)-1].differs = "each JSON parser has its own words"
		}
		add("set untrusted "+nv[0]+"="+nv[1], options(nv[0], nv[1]), "--force-untrusted")
	}
	// At last, since the store is not what it was afterwards.
	damaged := func(repair bool, damage func(file string)) func(d *rawDaemon, to *protocol.Writer) {
		return func(d *rawDaemon, to *protocol.Writer) {
			files, _ := filepath.Glob(string(d.dir()) + "/*")
			for _, file := range files {
				damage(file)
			}
			to.Op(protocol.OpVerifyStore)
			to.Bool(true)
			to.Bool(repair)
		}
	}
	alter := func(file string) { os.Chmod(file, 0o644); os.WriteFile(file, []byte("altered"), 0o444) }
	for _, repair := range []bool{false, true} {
		add(fmt.Sprint("verify what was altered ", repair), damaged(repair, alter))
		cases[len(cases)-1].unordered = true
	}
	add("verify what is gone", damaged(false, func(file string) { os.RemoveAll(file) }))
	cases[len(cases)-1].unordered = true
	return cases
}

// TestFramesUpstream makes requests, most of them wrong, of upstream's daemon and of ours, and compares what they say
// to the byte, colours and activities included.
func TestFramesUpstream(t *testing.T) {
	bin := os.Getenv("NIXDAEMON_UPSTREAM")
	if bin == "" {
		t.Skip("NIXDAEMON_UPSTREAM does not name a directory with upstream's nix-daemon")
	}
	version, err := exec.Command(filepath.Join(bin, "nix-daemon"), "--version").Output()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(version)), " "+NixVersion) {
		t.Skipf("NIXDAEMON_UPSTREAM holds another release than %s: %s (%v)", NixVersion, version, err)
	}
	ours := filepath.Join(t.TempDir(), "nix-daemon")
	build := exec.Command("go", "build", "-o", ours, "./cmd/nix-daemon")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	root := filepath.Join(t.TempDir(), "root") // the same for both: names of store paths depend on it
	said := func(program string) (all [][]string) {
		d := newRawDaemon(t, program, root)
		for _, c := range rawCases() {
			began := time.Now()
			lines := d.said(t, 37, func(to *protocol.Writer) { c.request(d, to) }, c.args...)
			if took := time.Since(began); took > time.Second {
				t.Logf("SLOW %s %s %v", program, c.name, took)
			}
			// What is done how far is told less often by ours, on purpose.
			lines = slices.DeleteFunc(lines, func(line string) bool {
				return strings.HasPrefix(line, "result 105 ") || strings.HasPrefix(line, "result 106 ")
			})
			all = append(all, lines)
		}
		d.remove()
		return all
	}
	theirs, mine := said(filepath.Join(bin, "nix-daemon")), said(ours)
	for i, c := range rawCases() {
		if theirs[i][len(theirs[i])-1] == "end" {
			t.Logf("%s: upstream hangs up without a word, ours says %q", c.name, mine[i])
			continue
		}
		if c.unordered {
			slices.Sort(theirs[i])
			slices.Sort(mine[i])
		}
		if diff := cmp.Diff(theirs[i], mine[i]); (diff != "") != (c.differs != "") {
			t.Errorf("%s (-upstream +ours):\n%s", c.name, diff)
		}
	}
}
