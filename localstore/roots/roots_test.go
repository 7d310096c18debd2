package roots

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

func path(n int) storepath.Path {
	p, err := storepath.ParseBase(fmt.Sprintf("%032d-p%d", n, n))
	if err != nil {
		panic(err)
	}
	return p
}

// fixture is a state directory, and a store in which the paths below 100 are valid.
type fixture struct {
	t   testing.TB
	top string
	o   Options
	log messages
}

type messages struct {
	activity.Discard
	mu   sync.Mutex
	list []string
}

func (m *messages) Message(level activity.Level, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if level <= activity.Info {
		m.list = append(m.list, text)
	}
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, top: top}
	f.o = Options{
		Dir:      "/nix/store",
		StateDir: top + "/var",
		Log:      &f.log,
		ProcDir:  top + "/proc",
		Valid: func(_ context.Context, paths []storepath.Path) ([]storepath.Path, error) {
			return slices.DeleteFunc(slices.Clone(paths), func(p storepath.Path) bool {
				return storepath.Compare(p, path(100)) >= 0
			}), nil
		},
	}
	for _, dir := range []string{"var/gcroots/auto", "var/gcroots/per-user/u", "var/profiles", "var/temproots", "home"} {
		f.mkdir(dir)
	}
	return f
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) mkdir(name string)      { f.t.Helper(); f.must(os.MkdirAll(f.top+"/"+name, 0o755)) }
func (f *fixture) link(target, at string) { f.t.Helper(); f.must(os.Symlink(target, f.top+"/"+at)) }
func (f *fixture) file(name, text string) {
	f.t.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.top+"/"+name), 0o755))
	f.must(os.WriteFile(f.top+"/"+name, []byte(text), 0o600))
}

func (f *fixture) print(n int) string { return f.o.Dir.Print(path(n)) }

// text prints roots, one a line, with the fixture's directory left out.
func (f *fixture) text(r Roots) []string {
	var out []string
	for p, labels := range r {
		for _, label := range labels {
			out = append(out, strings.TrimPrefix(label, f.top+"/")+" -> "+p.Name())
		}
	}
	slices.Sort(out)
	return out
}

func (f *fixture) compare(find func(context.Context, Options) (Roots, error), want ...string) {
	f.t.Helper()
	got, err := find(context.Background(), f.o)
	f.must(err)
	slices.Sort(want)
	if diff := cmp.Diff(want, f.text(got)); diff != "" {
		f.t.Errorf("roots (-want +got):\n%s", diff)
	}
}

func (f *fixture) said(want ...string) {
	f.t.Helper()
	for i, text := range f.log.list {
		f.log.list[i] = strings.ReplaceAll(text, f.top, "TOP")
	}
	slices.Sort(f.log.list)
	if diff := cmp.Diff(want, f.log.list); diff != "" {
		f.t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestPermanent(t *testing.T) {
	f := newFixture(t)
	f.link(f.print(1), "var/gcroots/direct")
	f.link(f.print(2)+"/bin/x", "var/gcroots/beneath")
	f.link(f.print(1), "var/profiles/p-1-link")
	f.link("p-1-link", "var/profiles/p")
	f.link(f.print(3), "home/result")
	f.link(f.top+"/home/result", "var/gcroots/auto/a")
	f.link("../../../home/result", "var/gcroots/per-user/u/relative")
	f.link(f.top+"/home/gone", "var/gcroots/auto/stale")
	f.link(f.top+"/home/gone", "var/gcroots/per-user/u/stale")
	f.link(f.top+"/home/result/no-dir", "var/gcroots/auto/stale2")
	f.link(f.top+"/home", "var/gcroots/dir-link")
	f.link(f.print(200), "var/gcroots/invalid")
	f.link("/nix/store/junk", "var/gcroots/junk")
	f.link("/nix/store", "var/gcroots/store")
	f.link("/nix/store/../../etc/passwd", "var/gcroots/dots")
	f.file("var/gcroots/"+path(4).Base(), "")
	f.file("var/gcroots/"+path(201).Base(), "")
	f.file("var/profiles/other-file", "")
	f.compare(Permanent,
		"home/result -> p3",
		"var/gcroots/00000000000000000000000000000004-p4 -> p4",
		"var/gcroots/beneath -> p2",
		"var/gcroots/direct -> p1",
		"var/profiles/p-1-link -> p1",
	)
	f.said(
		`removing stale link from "TOP/var/gcroots/auto/stale" to "TOP/home/gone"`,
		`removing stale link from "TOP/var/gcroots/auto/stale2" to "TOP/home/result/no-dir"`,
		`skipping invalid root from "TOP/var/gcroots/invalid" to "`+f.print(200)+`"`,
	)
	for name, there := range map[string]bool{"auto/stale": false, "auto/stale2": false, "per-user/u/stale": true, "auto/a": true} {
		if _, err := os.Lstat(f.top + "/var/gcroots/" + name); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPermanentHostile has what users can put below gcroots and at the targets of indirect roots.
func TestPermanentHostile(t *testing.T) {
	f := newFixture(t)
	f.link(f.print(1), "var/gcroots/good")
	f.link("loop", "home/loop")
	f.link(f.top+"/home/loop/x", "var/gcroots/auto/loop")
	f.link("/"+strings.Repeat("x", 300), "var/gcroots/auto/long")
	f.link("/"+strings.Repeat("x/", 2000), "var/gcroots/per-user/u/longer")
	f.link("\xff\n\x01", "var/gcroots/per-user/u/bytes")
	f.must(unix.Mkfifo(f.top+"/var/gcroots/per-user/u/fifo", 0o600))
	f.link(f.top+"/var/gcroots/per-user/u/fifo", "var/gcroots/auto/fifo")
	deep := "var/gcroots/per-user/u"
	for range maxDepth + 10 {
		deep += "/d"
	}
	f.mkdir(deep)
	f.link(f.print(2), deep+"/root")
	f.compare(Permanent, "var/gcroots/good -> p1")
	top := "TOP/var/gcroots/per-user/u" + strings.Repeat("/d", maxDepth-2)
	f.said(
		`cannot read potential root "TOP/var/gcroots/auto/long"`,
		`cannot read potential root "TOP/var/gcroots/auto/loop"`,
		`cannot read potential root "`+top+`"`,
	)
}

// TestPermanentMany has directories that are divided among goroutines: all roots are found, once, and all stale links removed.
func TestPermanentMany(t *testing.T) {
	f := newFixture(t)
	var want, said []string
	for d := range 5 {
		f.mkdir(fmt.Sprintf("var/gcroots/d%d", d))
		for i := range 2*minPart + d {
			name := fmt.Sprintf("var/gcroots/d%d/r%d", d, i)
			f.link(f.print(i%100), name)
			want = append(want, fmt.Sprintf("%s -> p%d", name, i%100))
		}
	}
	for i := range 6 * minPart {
		auto, home := fmt.Sprintf("var/gcroots/auto/a%d", i), fmt.Sprintf("home/h%d", i)
		f.link(f.top+"/"+home, auto)
		if i%7 == 0 {
			said = append(said, fmt.Sprintf(`removing stale link from "TOP/%s" to "TOP/%s"`, auto, home))
			continue
		}
		f.link(f.print(i%100), home)
		want = append(want, fmt.Sprintf("%s -> p%d", home, i%100))
	}
	slices.Sort(said)
	f.compare(Permanent, want...)
	f.said(said...)
	f.compare(Permanent, want...)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Permanent(ctx, f.o); !errors.Is(err, context.Canceled) {
		t.Errorf("after an end: %v", err)
	}
}

func TestPermanentWithoutDirectories(t *testing.T) {
	f := newFixture(t)
	f.must(os.RemoveAll(f.o.StateDir + "/gcroots"))
	f.must(os.RemoveAll(f.o.StateDir + "/profiles"))
	f.compare(Permanent)
	f.must(os.RemoveAll(f.o.StateDir))
	if _, err := Permanent(context.Background(), f.o); err == nil {
		t.Error("a state directory that is not there has no roots")
	}
}

func TestStaleLinkComesBack(t *testing.T) {
	f := newFixture(t)
	f.link(f.top+"/home/result", "var/gcroots/auto/a")
	dir, err := os.Open(f.top + "/var/gcroots/auto")
	f.must(err)
	defer dir.Close()
	f.link(f.print(1), "home/result") // after it was found missing
	w := &walker{Options: &f.o, ctx: context.Background()}
	w.removeStale(int(dir.Fd()), "a", f.top+"/var/gcroots/auto/a", f.top+"/home/result")
	if target, err := os.Readlink(f.top + "/var/gcroots/auto/a"); err != nil || target != f.top+"/home/result" {
		t.Errorf("the link is %q, %v", target, err)
	}
	if len(w.found) != 1 {
		t.Errorf("found %v", w.found)
	}
}

func TestFailsWhenValidityIsUnknown(t *testing.T) {
	f := newFixture(t)
	f.link(f.print(1), "var/gcroots/r")
	broken := errors.New("no database")
	f.o.Valid = func(context.Context, []storepath.Path) ([]storepath.Path, error) { return nil, broken }
	if _, err := Find(context.Background(), f.o); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Permanent(ctx, f.o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// lockTemp makes a file of temporary roots and holds its lock.
func (f *fixture) lockTemp(name, text string, kind pathlock.Kind) *os.File {
	f.t.Helper()
	f.file("var/temproots/"+name, text)
	file, err := os.OpenFile(f.o.StateDir+"/temproots/"+name, os.O_RDWR, 0)
	f.must(err)
	f.t.Cleanup(func() { file.Close() })
	if ok, err := pathlock.TryFlock(file, kind); !ok || err != nil {
		f.t.Fatal(ok, err)
	}
	return file
}

func TestTemporary(t *testing.T) {
	f := newFixture(t)
	f.lockTemp("123", f.print(1)+"\x00"+f.print(200)+"\x00"+"/nix/store/junk\x00"+f.print(3), pathlock.Exclusive)
	f.lockTemp("124", f.print(1)+"\x00", pathlock.Shared)
	f.lockTemp("temproots-9-1", f.print(4)+"\x00", pathlock.Exclusive)
	f.file("var/temproots/125", f.print(2)+"\x00")
	f.file("var/temproots/.keep", "")
	f.mkdir("var/temproots/dir")
	f.link("/etc/passwd", "var/temproots/126")
	f.must(unix.Mkfifo(f.o.StateDir+"/temproots/127", 0o600))
	f.o.InProcess = func() ([]storepath.Path, error) { return []storepath.Path{path(1), path(5)}, nil }
	waiting, err := os.Open(f.o.StateDir + "/temproots/125")
	f.must(err)
	defer waiting.Close()
	f.compare(Temporary,
		"{temp:123} -> p1",
		"{temp:123} -> p200",
		"{temp:124} -> p1",
		"{temp:"+strconv.Itoa(os.Getpid())+"} -> p5",
		"{temp:temproots-9-1} -> p4",
	)
	f.said(`removing stale temporary roots file "TOP/var/temproots/125"`)
	if _, err := os.Lstat(f.o.StateDir + "/temproots/125"); !os.IsNotExist(err) {
		t.Errorf("the stale file is still there: %v", err)
	}
	if stale, err := pathlock.IsStale(waiting); !stale || err != nil {
		t.Error("who waits for it does not learn that it is gone")
	}
	for _, name := range []string{".keep", "dir", "126", "127"} {
		if _, err := os.Lstat(f.o.StateDir + "/temproots/" + name); err != nil {
			t.Error(err)
		}
	}
	f.o.Censor = true
	f.compare(Temporary, "{censored} -> p1", "{censored} -> p200", "{censored} -> p4", "{censored} -> p5")
}

func TestHoldKeepsOldReleasesWaiting(t *testing.T) {
	f := newFixture(t)
	file := f.lockTemp("124", f.print(1)+"\x00", pathlock.Shared)
	h, err := Hold(context.Background(), f.o)
	f.must(err)
	// Such a process takes the exclusive lock to add a root.
	if ok, err := pathlock.TryFlock(file, pathlock.Exclusive); ok || err != nil {
		t.Error("a root could be added unnoticed", err)
	}
	h.Release()
	if ok, err := pathlock.TryFlock(file, pathlock.Exclusive); !ok || err != nil {
		t.Error("the lock was not released", err)
	}
}

func TestTemporaryFileOfAnotherOwnerIsLeft(t *testing.T) {
	f := newFixture(t)
	f.file("var/temproots/5", f.print(1)+"\x00")
	file, err := os.OpenFile(f.o.StateDir+"/temproots/5", os.O_RDWR, 0)
	f.must(err)
	defer file.Close()
	f.must(os.Remove(file.Name()))
	f.file("var/temproots/5", "new")
	dir, err := os.Open(f.o.StateDir + "/temproots")
	f.must(err)
	defer dir.Close()
	f.must(f.o.removeStaleFile(file, int(dir.Fd()), "5"))
	if _, err := os.Lstat(file.Name()); err != nil {
		t.Error("the new owner's file was removed")
	}
}

func TestTemporaryWithoutDirectory(t *testing.T) {
	f := newFixture(t)
	f.must(os.RemoveAll(f.o.StateDir + "/temproots"))
	f.compare(Temporary)
}

func FuzzReadRoots(f *testing.F) {
	f.Add([]byte("/nix/store/00000000000000000000000000000001-p1\x00"))
	f.Add([]byte("\x00\x00/nix/store/x\x00partial"))
	f.Add(bytes.Repeat([]byte("x"), maxRoot+1))
	o := Options{Dir: "/nix/store", Log: activity.Discard{}}
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(t.TempDir(), "1")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		roots := make(Roots)
		if err := o.readRoots(roots, file, "1"); err != nil {
			return
		}
		for p := range roots {
			if !bytes.Contains(data, []byte(p.Base())) {
				t.Errorf("found %s in %q", p, data)
			}
		}
	})
}

// TestRuntimeSeesChild has a program with a store path in its environment, where it runs and what it has open.
func TestRuntimeSeesChild(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("no process file system: ", err)
	}
	f := newFixture(t)
	f.o.ProcDir = "/proc"
	f.o.Dir = storepath.Dir(f.top + "/store")
	f.mkdir("store/" + path(1).Base() + "/dir")
	f.file("store/"+path(2).Base(), "text")
	open, err := os.Open(f.print(2))
	f.must(err)
	defer open.Close()
	cmd := exec.Command("/bin/sh", "-c", "echo; read x")
	cmd.Dir = f.print(1) + "/dir"
	cmd.Env = []string{"VARIABLE=a:" + f.print(3) + "/bin:b"}
	in, err := cmd.StdinPipe()
	f.must(err)
	out, err := cmd.StdoutPipe()
	f.must(err)
	f.must(cmd.Start())
	defer func() { in.Close(); cmd.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	proc := func(pid int) string { return "/proc/" + strconv.Itoa(pid) }
	f.compare(Runtime,
		proc(cmd.Process.Pid)+"/cwd -> p1",
		proc(cmd.Process.Pid)+"/environ -> p3",
		proc(os.Getpid())+"/fd/"+strconv.Itoa(int(open.Fd()))+" -> p2",
	)
	f.o.Censor = true
	f.compare(Runtime, "{censored} -> p1", "{censored} -> p2", "{censored} -> p3")
}

func BenchmarkFind2000(b *testing.B) {
	f := newFixture(b)
	f.o.ProcDir = "/proc"
	for i := range 1000 {
		f.link(f.print(i%100), fmt.Sprintf("home/result%d", i))
		f.link(fmt.Sprintf("%s/home/result%d", f.top, i), fmt.Sprintf("var/gcroots/auto/%d", i))
		f.link(f.print(i%100), fmt.Sprintf("var/profiles/p%d", i))
	}
	for b.Loop() {
		if _, err := Find(context.Background(), f.o); err != nil {
			b.Fatal(err)
		}
	}
}

// What may be readable tomorrow fails the search today: its target may be alive.
func TestOnlyPermanentFailuresAreNoRoots(t *testing.T) {
	for errno, want := range map[unix.Errno]bool{
		unix.EACCES: true, unix.ENOENT: true, unix.ENOTDIR: true, unix.ELOOP: true, unix.ENAMETOOLONG: true, unix.EINVAL: true,
		unix.EIO: false, unix.ESTALE: false, unix.ETIMEDOUT: false, unix.ENOMEM: false, unix.EMFILE: false, unix.ENFILE: false,
		unix.EPERM: false, unix.EHOSTDOWN: false,
	} {
		if got := isPermanent(fmt.Errorf("find roots: %w", errno)); got != want {
			t.Errorf("%v: got %v, want %v", errno, got, want)
		}
	}
}
