package fstree

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nar"
)

func measure(t *testing.T, d *Dir, name string) Measured {
	t.Helper()
	m, err := d.Measure(ctx, name, DumpOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMeasure compares sizes with those of the archives, of names, targets and files of every length around the padding.
func TestMeasure(t *testing.T) {
	d := tempDir(t)
	trees := map[string][]byte{"sample": sample(t)}
	for n := range 18 {
		text := strings.Repeat("x", n)
		trees["tree"+text] = archive(t, func(w *nar.Writer) {
			w.Directory("")
			w.Symlink("a"+text, "t"+text)
			w.Directory("b" + text)
			file(w, "program", text, true)
			w.EndDirectory()
			file(w, "c"+text, text+text, false)
			w.EndDirectory()
		})
		trees["file"+text] = archive(t, func(w *nar.Writer) { file(w, "", text, n%2 == 0) })
		trees["link"+text] = archive(t, func(w *nar.Writer) { w.Symlink("", "t"+text) })
	}
	for name, data := range trees {
		if _, err := d.Restore(name, bytes.NewReader(data), nil, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		if m := measure(t, d, name); m.Size != uint64(len(data)) || m.Touched {
			t.Errorf("%s: %+v, want %d bytes", name, m, len(data))
		}
	}
}

// TestMeasureCaseHack counts names as they are in the archive.
func TestMeasureCaseHack(t *testing.T) {
	d := tempDir(t)
	data := archive(t, func(w *nar.Writer) {
		w.Directory("")
		file(w, "A", "1", false)
		file(w, "a", "2", false)
		w.EndDirectory()
	})
	if _, err := d.Restore("x", bytes.NewReader(data), nil, RestoreOptions{CaseHack: true}); err != nil {
		t.Fatal(err)
	}
	m, err := d.Measure(ctx, "x", DumpOptions{CaseHack: true})
	if err != nil || m.Size != uint64(len(data)) {
		t.Errorf("%+v, %v, want %d bytes", m, err, len(data))
	}
}

// TestMeasureTouched changes each kind of thing in each way that shows.
func TestMeasureTouched(t *testing.T) {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	later := []unix.Timespec{now, now}
	for name, change := range map[string]func(path string) error{
		"time of a file":      func(p string) error { return os.Chtimes(p+"/file", time.Time{}, time.Now()) },
		"time of a directory": func(p string) error { return os.Chtimes(p, time.Time{}, time.Now()) },
		"time of a link": func(p string) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, p+"/link", later, unix.AT_SYMLINK_NOFOLLOW)
		},
		"mode of a file":      func(p string) error { return os.Chmod(p+"/file", 0o644) },
		"mode of a directory": func(p string) error { return os.Chmod(p, 0o755) },
		"set-id bit":          func(p string) error { return os.Chmod(p+"/program", 0o555|os.ModeSetgid) },
	} {
		d := tempDir(t)
		data := archive(t, func(w *nar.Writer) {
			w.Directory("")
			file(w, "file", "text", false)
			w.Symlink("link", "file")
			file(w, "program", "text", true)
			w.EndDirectory()
		})
		if _, err := d.Restore("x", bytes.NewReader(data), nil, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := change(d.Path() + "/x"); err != nil {
			t.Fatal(err)
		}
		if m := measure(t, d, "x"); !m.Touched {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// TestMeasureRefuses: what no archive can hold, or is not there.
func TestMeasureRefuses(t *testing.T) {
	d := tempDir(t)
	if err := unix.Mkfifo(d.Path()+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"pipe": "unsupported type", "gone": "no such file", "../x": "file name"} {
		if _, err := d.Measure(ctx, name, DumpOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
