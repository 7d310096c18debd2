package compat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol"
	nixclient "nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

const fullChild = "NIXDAEMON_TEST_FULL_CHILD"

// TestFullDisk does each kind of change with no room at all, and again with a little more until it succeeds, so that every
// step that needs room fails once; then the same with inodes. Whatever fails must say so, register nothing and leave
// nothing behind that hinders: a collection must work with no room left, and the change when there is some.
func TestFullDisk(t *testing.T) {
	if limit := os.Getenv(fullChild); limit != "" {
		newFullDisk(t, limit).run()
		return
	}
	requireClients(t, referenceVersion)
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	for _, limit := range []string{"size", "nr_inodes"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			inNamespace(t, "TestFullDisk", fullChild+"="+limit)
		})
	}
}

// fullDisk is a daemon on a file system whose limit can be moved.
type fullDisk struct {
	t     *testing.T
	limit string // the option of tmpfs
	s     scratch
	c     *nixclient.Client
	dir   storepath.Dir
	n     int

	daemon *daemon
}

// fullChange is a kind of change. It gives the path that it makes valid, if it makes one.
type fullChange struct {
	name string
	do   func(name string) (storepath.Path, error)
}

func newFullDisk(t *testing.T, limit string) *fullDisk {
	dir := t.TempDir()
	if err := unix.Mount("full", dir, "tmpfs", 0, "size=64m,nr_inodes=20000,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	f := &fullDisk{t: t, limit: limit, s: scratch{root: dir}}
	f.s.create(t)
	f.s.configure(t, "nar-buffer-size = 100000\ngc-reserved-space = 1048576\nauto-optimise-store = true\ntrusted-users = *\n")
	f.dir = storepath.Dir(f.s.path("store"))
	f.daemon = startDaemon(t, f.s, shared.daemon, daemonOptions{})
	f.connect()
	defer f.c.Close()
	f.collect() // the first makes what all others use
	return f
}

func (f *fullDisk) run() {
	changes := []fullChange{
		{"text", f.addText}, {"tree", f.addTree}, {"large", f.addLarge}, {"several", f.addSeveral}, {"repair", f.repair},
		{"build", f.build}, {"optimise", f.optimise}, {"root", f.addRoot}, {"log", f.addLog},
	}
	for _, c := range changes {
		f.t.Run(c.name, func(t *testing.T) {
			outer := f.t
			f.t = t
			defer func() { f.t = outer }()
			f.squeeze(c)
		})
	}
	f.restart()
	f.room(math.MaxInt32)
	f.connect()
	defer f.c.Close()
	if bad, err := f.c.Verify(context.Background(), true, false); bad || err != nil {
		f.t.Errorf("the store does not verify: %v, %v", bad, err)
	}
	f.collect()
	f.checkOnDisk()
}

// restart starts the daemon anew with no room at all: who wants to make some needs one.
func (f *fullDisk) restart() {
	mustStop(f.t, f.daemon)
	os.Remove(f.s.path("var/nix/nixdaemon-durable"))
	f.room(1)
	f.daemon = startDaemon(f.t, f.s, shared.daemon, daemonOptions{})
	f.connect()
	defer f.c.Close()
	f.collect()
}

func (f *fullDisk) connect() {
	f.c = nixclient.New(nixclient.Options{Dial: nixclient.Unix(f.s.socket()), Dir: f.dir, MaxConns: 1,
		Settings: &protocol.ClientOptions{MaxJobs: 1, Cores: 1, BuildVerbosity: 7}})
}

// room moves the limit so that there is so much left: pages or inodes.
func (f *fullDisk) room(left int) {
	f.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(f.s.root, &st); err != nil {
		f.t.Fatal(err)
	}
	size, inodes := 64<<20, 20000
	if f.limit == "size" {
		size = min(size, (int(st.Blocks-st.Bfree)+left)*int(st.Bsize))
	} else {
		inodes = min(inodes, int(st.Files-st.Ffree)+left)
	}
	// What the daemon deletes at the same moment makes it too small; that is no harm.
	if err := unix.Mount("full", f.s.root, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d,nr_inodes=%d", size, inodes)); err != nil {
		f.t.Fatal(err)
	}
}

// spaceError are the texts of errors that say what is wrong; the last is added to failures of builders, whatever they said.
var spaceError = regexp.MustCompile(`No space left on device|no space left on device|disk is full|lack of free disk space`)

// squeeze does a change with more and more room.
func (f *fullDisk) squeeze(c fullChange) {
	failures := 0
	for left := 0; ; left += 1 + left/12 {
		f.n++
		name := fmt.Sprintf("%s-%d", c.name, f.n)
		f.connect()
		f.room(left)
		p, err := c.do(name)
		if err == nil {
			f.c.Close()
			break
		}
		failures++
		if !spaceError.MatchString(err.Error()) || !strings.Contains(err.Error(), "/") {
			f.t.Errorf("with room for %d, %s fails with an unclear error: %v", left, name, err)
		}
		f.afterFailure(c, name, p, left)
		f.c.Close()
		if f.t.Failed() {
			return
		}
	}
	f.t.Logf("%s: %d failures", c.name, failures)
}

// afterFailure looks whether nothing is registered or stuck.
func (f *fullDisk) afterFailure(c fullChange, name string, p storepath.Path, left int) {
	ctx := context.Background()
	if !p.IsZero() {
		if valid, err := f.c.IsValid(ctx, p); valid || err != nil {
			f.t.Errorf("with room for %d, %s failed and is valid: %v, %v", left, name, valid, err)
		}
	}
	f.c.Close() // and with it the temporary roots
	f.connect()
	f.collect()
	f.room(math.MaxInt32)
	if _, err := c.do(name + "-again"); err != nil {
		f.t.Errorf("after failing with room for %d, %s fails with enough: %v", left, name, err)
	}
	if bad, err := f.c.Verify(ctx, true, false); bad || err != nil {
		f.t.Errorf("after failing with room for %d, %s: the store does not verify: %v, %v", left, name, bad, err)
	}
	f.collect() // which puts aside what the next one needs
}

func (f *fullDisk) collect() {
	f.t.Helper()
	_, err := f.c.CollectGarbage(context.Background(), protocol.GCRequest{Action: protocol.GCDeleteDead, WholeStore: true, MaxFreed: math.MaxUint64})
	if err != nil {
		f.t.Errorf("collecting fails: %v", err)
	}
}

// checkOnDisk looks for leftovers after a collection.
func (f *fullDisk) checkOnDisk() {
	valid, err := f.c.AllValidPaths(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	known := map[string]bool{".links": true}
	for _, p := range valid {
		known[p.Base()] = true
	}
	entries, err := os.ReadDir(f.s.path("store"))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries {
		if !known[e.Name()] {
			f.t.Errorf("%s is left in the store after a collection", e.Name())
		}
	}
	if left, _ := filepath.Glob(f.s.path("var/nix/builds/*")); len(left) > 0 {
		f.t.Errorf("left in the build directory: %v", left)
	}
}

func (f *fullDisk) addText(name string) (storepath.Path, error) {
	text := strings.Repeat(name, 1000)
	ca := storepath.ContentAddress{Method: storepath.MethodText, Hash: nixhash.Of(nixhash.SHA256, text)}
	info, err := pathinfo.FromCA(f.dir, name, ca, storepath.References{})
	if err != nil {
		return storepath.Path{}, err
	}
	_, err = f.c.AddToStore(context.Background(), protocol.AddToStoreRequest{Name: name, MethodAlgo: "text:sha256"}, strings.NewReader(text))
	return info.Path, err
}

// treeNAR is the archive of a directory with files of all sizes.
func treeNAR(name string) ([]byte, error) {
	var all bytes.Buffer
	w := nar.NewWriter(&all)
	err := w.Directory("")
	for i := range 6 {
		data := strings.Repeat(name, i*400)
		err = errors.Join(err, w.Regular(fmt.Sprint("file-", i), i == 1, uint64(len(data)), strings.NewReader(data)))
	}
	err = errors.Join(err, w.Directory("sub"), w.Symlink("link", name), w.EndDirectory(), w.EndDirectory(), w.Close())
	return all.Bytes(), err
}

func (f *fullDisk) treeInfo(name string) (*pathinfo.Info, []byte, error) {
	data, err := treeNAR(name)
	if err != nil {
		return nil, nil, err
	}
	p, err := f.dir.MakePath("output:out", nixhash.Of(nixhash.SHA256, name), name)
	return &pathinfo.Info{Path: p, NarHash: nixhash.Of(nixhash.SHA256, string(data)), NarSize: uint64(len(data))}, data, err
}

func (f *fullDisk) addTree(name string) (storepath.Path, error) {
	info, data, err := f.treeInfo(name)
	if err != nil {
		return storepath.Path{}, err
	}
	return info.Path, f.c.AddNAR(context.Background(), protocol.AddToStoreNarRequest{Info: info, DontCheckSigs: true}, bytes.NewReader(data))
}

// addLarge adds what does not stay in memory.
func (f *fullDisk) addLarge(name string) (storepath.Path, error) {
	text := strings.Repeat(name, 30_000)
	ca := storepath.ContentAddress{Method: storepath.MethodFlat, Hash: nixhash.Of(nixhash.SHA256, text)}
	info, err := pathinfo.FromCA(f.dir, name, ca, storepath.References{})
	if err != nil {
		return storepath.Path{}, err
	}
	_, err = f.c.AddToStore(context.Background(), protocol.AddToStoreRequest{Name: name, MethodAlgo: "fixed:sha256"}, strings.NewReader(text))
	return info.Path, err
}

// addSeveral gives the last of its paths.
func (f *fullDisk) addSeveral(name string) (storepath.Path, error) {
	var all []nixclient.Addition
	for i := range 4 {
		info, data, err := f.treeInfo(fmt.Sprint(name, "-", i))
		if err != nil {
			return storepath.Path{}, err
		}
		if i > 0 {
			info.References = []storepath.Path{all[i-1].Info.Path}
		}
		all = append(all, nixclient.Addition{Info: info, NAR: bytes.NewReader(data)})
	}
	return all[3].Info.Path, f.c.AddMultiple(context.Background(), false, true, all)
}

// repair replaces a path that is there; the path stays valid and intact when that fails, so none is given.
func (f *fullDisk) repair(name string) (storepath.Path, error) {
	info, data, err := f.treeInfo("repaired")
	if err != nil {
		return storepath.Path{}, err
	}
	link := f.s.path("var/nix/gcroots/repaired")
	if _, err := os.Lstat(link); err != nil {
		f.room(math.MaxInt32)
		if err := os.Symlink(f.dir.Print(info.Path), link); err != nil {
			return storepath.Path{}, err
		}
		if err := f.c.AddNAR(context.Background(), protocol.AddToStoreNarRequest{Info: info, DontCheckSigs: true}, bytes.NewReader(data)); err != nil {
			return storepath.Path{}, err
		}
		f.room(0)
	}
	err = f.c.AddNAR(context.Background(), protocol.AddToStoreNarRequest{Info: info, DontCheckSigs: true, Repair: true}, bytes.NewReader(data))
	if valid, e := f.c.IsValid(context.Background(), info.Path); !valid || e != nil {
		f.t.Errorf("%s: what was to be repaired is gone: %v, %v", name, valid, e)
	}
	return storepath.Path{}, err
}

func (f *fullDisk) derivation(name string) (storepath.Path, storepath.Path, error) {
	d := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{
		Name: name, Platform: "x86_64-linux", Builder: "/bin/sh",
		Args:    []string{"-ec", "mkdir $out; echo hello; for i in 1 2 3 4; do echo $out $i > $out/$i; done"},
		Env:     map[string]string{"name": name, "out": "", "system": "x86_64-linux", "builder": "/bin/sh", "PATH": "/bin:/usr/bin"},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}},
	}}
	h := &derivation.Hasher{Dir: f.dir, Memo: derivation.NewMemo(1)}
	if err := h.FillOutputPaths(context.Background(), d); err != nil {
		return storepath.Path{}, storepath.Path{}, err
	}
	text, err := d.ATerm(f.dir)
	if err != nil {
		return storepath.Path{}, storepath.Path{}, err
	}
	out, err := f.dir.Parse(d.Env["out"])
	if err != nil {
		return storepath.Path{}, storepath.Path{}, err
	}
	info, err := f.c.AddToStore(context.Background(), protocol.AddToStoreRequest{Name: name + ".drv", MethodAlgo: "text:sha256"}, strings.NewReader(text))
	if err != nil {
		return out, out, err
	}
	return info.Path, out, nil
}

func (f *fullDisk) build(name string) (storepath.Path, error) {
	drv, out, err := f.derivation(name)
	if err != nil {
		return out, err
	}
	want := derivation.DerivedPath{Drv: &derivation.SingleDerivedPath{Path: drv}, Outputs: derivation.OutputsSpec{All: true}}
	return out, f.c.BuildPaths(context.Background(), []derivation.DerivedPath{want}, derivation.BuildNormal)
}

// optimise links what was not linked; it needs room only for names.
func (f *fullDisk) optimise(string) (storepath.Path, error) {
	return storepath.Path{}, f.c.Optimise(context.Background())
}

func (f *fullDisk) addRoot(name string) (storepath.Path, error) {
	return storepath.Path{}, f.c.AddIndirectRoot(context.Background(), f.s.path("tmp", name))
}

func (f *fullDisk) addLog(name string) (storepath.Path, error) {
	drv, err := f.dir.MakePath("text", nixhash.Of(nixhash.SHA256, name), name+".drv")
	if err != nil {
		return storepath.Path{}, err
	}
	return storepath.Path{}, f.c.AddBuildLog(context.Background(), drv, io.LimitReader(neverEnding{}, 20_000))
}

// neverEnding is a log that does not compress well.
type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) {
	x := uint32(2463534242)
	for i := range p {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		p[i] = byte(x)
	}
	return len(p), nil
}
