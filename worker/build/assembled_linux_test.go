package build

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker/settings"
)

// countingLauncher tells how many inputs were assembled each time, or fails to.
type countingLauncher struct {
	Launcher
	err error

	mu    sync.Mutex
	binds []int
}

func (l *countingLauncher) Assemble(dir, root string, binds []sandbox.Bind, user *sandbox.User, ids *sandbox.IDMap) (*sandbox.Assembly, error) {
	l.mu.Lock()
	l.binds = append(l.binds, len(binds))
	l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	return l.Launcher.Assemble(dir, root, binds, user, ids)
}

// counting makes a world's launcher count.
func counting(l *countingLauncher) func(*Options) {
	return func(o *Options) { l.Launcher, o.Launcher = o.Launcher, l }
}

// manyInputs are enough to be assembled, of every kind: files, directories and links.
func (w *world) manyInputs(n int) []storepath.Path {
	w.Helper()
	inputs := make([]storepath.Path, n)
	for i := range inputs {
		inputs[i] = w.source("many-"+strconv.Itoa(i), "text "+strconv.Itoa(i))
		real := w.store.RealPath(inputs[i])
		var err error
		switch i % 4 {
		case 1:
			err = errors.Join(os.Remove(real), os.Mkdir(real, 0o755), os.WriteFile(real+"/text", []byte("in directory "+strconv.Itoa(i)), 0o444))
		case 2:
			err = errors.Join(os.Remove(real), os.Symlink("leads to "+strconv.Itoa(i), real))
		}
		if err != nil {
			w.Fatal(err)
		}
	}
	return inputs
}

// seen is what a builder with these inputs says of them.
func (w *world) seen(name string, inputs ...storepath.Path) string {
	w.Helper()
	return w.read(w.mustBuild(w.drv(name, "cd $NIX_STORE; { for i in *; do if test -L $i; then ls -l $i | grep -o 'leads.*'; elif test -d $i; then cat $i/*; echo; else cat $i; echo; fi; done; } > /tmp/seen; "+
		"for i in *; do if test ! -L $i && chmod 700 $i; then exit 1; fi; done; cp /tmp/seen $out", needs(inputs...))))
}

// expected is what it should say: what is in the store.
func (w *world) expected(inputs []storepath.Path) string {
	w.Helper()
	var b strings.Builder
	for _, p := range storepath.SortUnique(slices.Clone(inputs)) {
		real := w.store.RealPath(p)
		text, err := os.Readlink(real)
		if err != nil {
			if st, err := os.Lstat(real); err == nil && st.IsDir() {
				real += "/text"
			}
			text = w.readFile(real)
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}

// replace puts a file in the place of a store path.
func (w *world) replace(p storepath.Path, text string) {
	w.Helper()
	real := w.store.RealPath(p)
	aside := w.root + "/aside"
	if err := errors.Join(os.WriteFile(real+".tmp", []byte(text), 0o444), os.Rename(real, aside), os.Rename(real+".tmp", real), os.RemoveAll(aside)); err != nil {
		w.Fatal(err)
	}
}

// countingWorlds has builders run as ourselves, and as build users.
func countingWorlds(t *testing.T, test func(t *testing.T, w *world, l *countingLauncher)) {
	t.Run("own user", func(t *testing.T) {
		l := new(countingLauncher)
		test(t, newWorld(t, counting(l)), l)
	})
	t.Run("build users", func(t *testing.T) {
		l := new(countingLauncher)
		test(t, newUserWorldWith(t, counting(l), "one", "two"), l)
	})
}

// TestAssembledInputs builds with nearly the same inputs again and again, while they change.
func TestAssembledInputs(t *testing.T) {
	test := func(t *testing.T, w *world, l *countingLauncher) {
		w.alone()
		inputs := w.manyInputs(80)
		more := w.source("more", "one more")
		n := 0
		check := func(what string, inputs []storepath.Path, assemblies ...int) {
			t.Helper()
			n++
			if got, want := w.seen("seen-"+strconv.Itoa(n), inputs...), w.expected(inputs); got != want {
				t.Errorf("%s: builder sees\n%swant\n%s", what, got, want)
			}
			if !slices.Equal(l.binds, assemblies) {
				t.Errorf("%s: assembled %v, want %v", what, l.binds, assemblies)
			}
		}
		check("first", inputs)
		check("second", inputs, 60)
		check("third", inputs, 60)
		check("one more", append(inputs[:80:80], more), 60)
		check("fewer", inputs[10:], 60)
		check("again", inputs, 60)
		check("few", inputs[:5], 60)
		check("all, from few", inputs, 60, 60)
		// Then the directory is made anew, for a builder like those before.
		w.replace(inputs[0], "repaired")
		check("replaced", inputs, 60, 60, 60)
		check("after that", inputs, 60, 60, 60)
		w.replace(inputs[1], "another kind")
		check("another kind", inputs, 60, 60, 60, 60)
		check("after that, too", inputs, 60, 60, 60, 60)
		w.nothingLeft()
	}
	countingWorlds(t, test)
}

// TestAssembledAtOnce builds in two directories at a time: what one needed the other is likely to need again.
func TestAssembledAtOnce(t *testing.T) {
	l := new(countingLauncher)
	w := newWorld(t, counting(l))
	w.alone()
	inputs := w.manyInputs(60)
	meet := w.root + "/meet"
	if err := unix.Mkfifo(meet, 0o666); err != nil {
		t.Fatal(err)
	}
	w.set(func(s *settings.Settings) {
		s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: "/meet", Source: meet})
	})
	// Each waits for the other.
	w.buildAll([]derivation.DerivedPath{
		built(w.drv("reader", "cat /meet > $out", needs(inputs...))), built(w.drv("writer", "echo > /meet; echo > $out", needs(inputs...))),
	})
	if !slices.Equal(l.binds, []int{45}) {
		t.Errorf("assembled %v, want 45 for the second", l.binds)
	}
	w.nothingLeft()
}

// TestTidiedByNames has builders leave all kinds of things among their inputs, so few that their names are known, and so
// many that they are not.
func TestTidiedByNames(t *testing.T) {
	test := func(t *testing.T, w *world, l *countingLauncher) {
		w.alone()
		inputs := w.manyInputs(40)
		extra := w.source("extra", "extra")
		const litter = "cd $NIX_STORE; echo x > file; mkdir dir; echo y > dir/file; ln -s nowhere link; ln file hard; echo z > passing; mv passing moved; mkdir moving; mv moving dir/sub; "
		for i, script := range []string{"", litter, litter + "n=0; while test $n -lt 5000; do : > many$n; n=$((n+1)); done; ", litter, ""} {
			more := inputs
			if i == 3 {
				more = append(inputs[:40:40], extra)
			}
			name := "litter-" + strconv.Itoa(i)
			out := w.mustBuild(w.drv(name, "ls -A $NIX_STORE > /tmp/seen; "+script+"cp /tmp/seen $out; : > /tmp/left", needs(more...)))
			var want []string
			for _, p := range storepath.SortUnique(slices.Clone(more)) {
				want = append(want, p.Base())
			}
			if diff := cmp.Diff(want, strings.Fields(w.read(out))); diff != "" {
				t.Errorf("builder %d sees (-want +got)\n%s", i, diff)
			}
			if idle := w.idleChroots(); len(idle) != 1 {
				t.Errorf("after builder %d: idle %q, want one", i, idle)
			}
		}
		if !slices.Equal(l.binds, []int{30}) {
			t.Errorf("assembled %v, want 30", l.binds)
		}
		w.nothingLeft()
	}
	countingWorlds(t, test)
}

// TestCannotAssemble: then each input is mounted for each builder.
func TestCannotAssemble(t *testing.T) {
	l := &countingLauncher{err: errors.New("no such thing here")}
	w := newWorld(t, counting(l))
	w.alone()
	inputs := w.manyInputs(60)
	for i := range 3 {
		if got, want := w.seen("seen-"+strconv.Itoa(i), inputs...), w.expected(inputs); got != want {
			t.Errorf("builder sees\n%swant\n%s", got, want)
		}
	}
	if len(l.binds) != 1 {
		t.Errorf("tried %d times, want once", len(l.binds))
	}
	w.nothingLeft()
}

// TestAssembledNotReused: without a directory that is used again nothing is assembled.
func TestAssembledNotReused(t *testing.T) {
	l := new(countingLauncher)
	w := newWorld(t, counting(l))
	w.alone()
	if err := w.sched.ended(); err != nil {
		t.Fatal(err)
	}
	inputs := w.manyInputs(60)
	for i := range 3 {
		if out := w.seen("seen-"+strconv.Itoa(i), inputs...); out != w.expected(inputs) {
			t.Errorf("builder sees\n%s", out)
		}
	}
	if len(l.binds) != 0 {
		t.Errorf("assembled %v", l.binds)
	}
	w.nothingLeft()
}

func TestStoreWatch(t *testing.T) {
	dir := t.TempDir()
	if _, err := watchStore(dir + "/none"); err == nil {
		t.Error("watches what is not there")
	}
	w, err := watchStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	look := func(known bool, want ...string) {
		t.Helper()
		var got []string
		if w.changes(func(_ int, name string) { got = append(got, name) }) != known || !slices.Equal(got, want) {
			t.Errorf("got %q, want %q; known should be %t", got, want, known)
		}
	}
	look(true)
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(dir+"/"+name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	look(true)
	if err := errors.Join(os.Remove(dir+"/a"), os.Rename(dir+"/b", dir+"/c"), os.Mkdir(dir+"/d", 0o755)); err != nil {
		t.Fatal(err)
	}
	look(true, "a", "b", "c")
	if err := unix.Renameat2(unix.AT_FDCWD, dir+"/c", unix.AT_FDCWD, dir+"/d", unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/d", []byte("written in place"), 0o644); err != nil {
		t.Fatal(err)
	}
	look(true, "c", "d", "d", "c")
	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	look(false)
}

// TestInnerWatch watches what builders see, and goes on when one of them is gone.
func TestInnerWatch(t *testing.T) {
	w, err := newDirWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	one, two := t.TempDir(), t.TempDir()
	first, err := w.addInner(one)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.addInner(two)
	if err != nil || first == second {
		t.Fatal(first, second, err)
	}
	if n, err := w.addInner(one + "/none"); err == nil {
		t.Errorf("watches what is not there as %d", n)
	}
	look := func(want ...string) {
		t.Helper()
		var got []string
		names := map[int]string{first: "1 ", second: "2 "}
		if !w.changes(func(dir int, name string) { got = append(got, names[dir]+name) }) || !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	err = errors.Join(os.WriteFile(one+"/file", nil, 0o644), os.Mkdir(two+"/dir", 0o755), os.WriteFile(two+"/dir/below", nil, 0o644),
		os.Link(one+"/file", one+"/hard"), os.Symlink("x", two+"/link"), os.Rename(one+"/hard", two+"/moved"), os.Remove(two+"/link"))
	if err != nil {
		t.Fatal(err)
	}
	look("1 file", "2 dir", "1 hard", "2 link", "1 hard", "2 moved", "2 link")
	w.remove(first)
	if err := errors.Join(os.RemoveAll(one), os.WriteFile(two+"/more", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	look("2 more")
	if err := os.RemoveAll(two); err != nil {
		t.Fatal(err)
	}
	w.remove(second)
	w.changes(func(int, string) {})
	look()
}

// TestStoreWatchOverflow: more happens than is remembered.
func TestStoreWatchOverflow(t *testing.T) {
	overflow := make([]byte, unix.SizeofInotifyEvent)
	binary.NativeEndian.PutUint32(overflow[4:], unix.IN_Q_OVERFLOW)
	if events(overflow, func(int, string) {}) {
		t.Error("an overflow is known")
	}
	var p chrootPool
	m := &assembled{names: map[string]struct{}{"x": {}}}
	p.assembled = map[*assembled]struct{}{m: {}}
	if got := p.judge(m, 1); got != assembledStale {
		t.Errorf("judged %d without a watch", got)
	}
	p.endWatch()
	if !m.stale {
		t.Error("used although nobody watches")
	}
}

func FuzzEvents(f *testing.F) {
	event := func(mask uint32, name string) []byte {
		b := make([]byte, unix.SizeofInotifyEvent, unix.SizeofInotifyEvent+len(name))
		binary.NativeEndian.PutUint32(b[4:], mask)
		binary.NativeEndian.PutUint32(b[12:], uint32(len(name)))
		return append(b, name...)
	}
	f.Add(event(unix.IN_DELETE, "name\x00\x00\x00"))
	f.Add(append(event(unix.IN_MOVED_FROM, "a\x00"), event(unix.IN_MOVED_TO, "b\x00")...))
	f.Add(event(unix.IN_IGNORED, ""))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		known := events(data, func(_ int, name string) {
			total += len(name)
			if strings.ContainsRune(name, 0) {
				t.Errorf("name %q", name)
			}
		})
		if total > len(data) || known && len(data) > 0 && len(data) < unix.SizeofInotifyEvent {
			t.Errorf("%d bytes of names in %d", total, len(data))
		}
	})
}
