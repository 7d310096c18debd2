package builtin

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"nixdaemon/worker/builtin/builtinjob"
)

// tarball makes an archive of these entries. Regular files have their name as contents.
func tarball(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, h.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name string) tar.Header { return tar.Header{Name: name} }
func dir(name string) tar.Header  { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
func link(name, target string) tar.Header {
	return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
}
func hard(name, target string) tar.Header {
	return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}
}

// unpackTarball unpacks a channel and describes what came of it.
func unpackTarball(t testing.TB, archive []byte, channel string) (*result, string) {
	t.Helper()
	src := filepath.Join(t.TempDir(), "src")
	if err := os.WriteFile(src, archive, 0o644); err != nil {
		t.Fatal(err)
	}
	return do(t, "unpack-channel", builtinjob.Job{Env: map[string]string{"channelName": channel, "src": src}}), src
}

func TestUnpackChannel(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entries []tar.Header
		want    map[string]string
	}{
		{"plain", []tar.Header{dir("x"), file("x/a"), dir("x/d"), link("x/d/l", "../../../etc/passwd"), file("x/d/b")},
			map[string]string{"ch": "/", "ch/a": "x/a", "ch/d": "/", "ch/d/l": "->../../../etc/passwd", "ch/d/b": "x/d/b"}},
		{"parents that are not there", []tar.Header{file("x/a/b/c")},
			map[string]string{"ch": "/", "ch/a": "/", "ch/a/b": "/", "ch/a/b/c": "x/a/b/c"}},
		{"a name from the root", []tar.Header{file("/x/a"), file(".//x/./b")},
			map[string]string{"ch": "/", "ch/a": "/x/a", "ch/b": ".//x/./b"}},
		{"the top itself", []tar.Header{dir("./"), file("./x")}, map[string]string{"ch": "./x"}},
		{"the right name already", []tar.Header{file("ch/x")}, map[string]string{"ch": "/", "ch/x": "ch/x"}},
		{"a later entry wins", []tar.Header{file("x/a"), link("x/a", "t"), link("x/b", "t"), file("x/b"), dir("x/c"), file("x/c"),
			file("x/d"), dir("x/d"), file("x/d/e")},
			map[string]string{"ch": "/", "ch/a": "->t", "ch/b": "x/b", "ch/c": "x/c", "ch/d": "/", "ch/d/e": "x/d/e"}},
		{"hard links", []tar.Header{file("x/a"), hard("x/b", "x/a"), link("x/l", "/etc/passwd"), hard("x/m", "/x/l"), hard("x/a", "x/a")},
			map[string]string{"ch": "/", "ch/a": "x/a", "ch/b": "x/a", "ch/l": "->/etc/passwd", "ch/m": "->/etc/passwd"}},
		{"a link that is replaced, not followed", []tar.Header{link("x/l", "/nonexistent/evil"), file("x/l")},
			map[string]string{"ch": "/", "ch/l": "x/l"}},
		{"a link that becomes a directory", []tar.Header{link("x/l", "/"), dir("x/l"), file("x/l/f")},
			map[string]string{"ch": "/", "ch/l": "/", "ch/l/f": "x/l/f"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := unpackTarball(t, tarball(t, tt.entries...), "ch")
			if r.exit != 0 {
				t.Fatalf("exit status %d:\n%s", r.exit, r.log)
			}
			if diff := cmp.Diff(tt.want, tree(t, r.out)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What GHSA-gr92-w2r5-qw5p (CVE-2026-44029) and its like do must fail, and leave the file beside the output alone.
func TestUnpackHostile(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	for _, tt := range []struct {
		name    string
		entries []tar.Header
		want    string
	}{
		{"upwards", []tar.Header{file("../victim")}, "Path contains '..'"},
		{"upwards later", []tar.Header{file("x/../../victim")}, "Path contains '..'"},
		{"through a link", []tar.Header{link("x", outside), file("x/victim")}, "x: Cannot extract through symlink x"},
		{"through a link deep down", []tar.Header{link("x/y/l", outside), file("x/y/l/victim")}, "x/y/l: Cannot extract through symlink x/y/l"},
		{"through a relative link", []tar.Header{link("x/l", ".."), link("x/m", "l/.."), file("x/m/victim")}, "x/m: Cannot extract through symlink x/m"},
		{"a directory through a link", []tar.Header{link("x", outside), dir("x/victim/")}, "x: Cannot extract through symlink x"},
		{"a link through a link", []tar.Header{link("x", outside), link("x/victim", "/")}, "x: Cannot extract through symlink x"},
		{"a hard link to something outside", []tar.Header{hard("x", "../victim")}, "x: Path contains '..'"},
		{"a hard link by absolute name", []tar.Header{hard("x", victim)}, "no such file or directory"},
		{"a hard link through a link", []tar.Header{link("l", outside), hard("x", "l/victim")}, "x: l: Cannot extract through symlink l"},
		{"a hard link through a file", []tar.Header{file("f"), hard("x", "f/victim")}, "x: f: not a directory"},
		{"a hard link to the top", []tar.Header{hard("x", ".")}, "x: hard link has an invalid target"},
		{"a device", []tar.Header{{Name: "x", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}}, "x: unsupported file type '3'"},
		{"a pipe", []tar.Header{{Name: "x", Typeflag: tar.TypeFifo}}, "x: unsupported file type '6'"},
		{"the top as a file", []tar.Header{file("./.")}, "'./.' is not a directory"},
		{"the top as a link", []tar.Header{link("/", outside)}, "'/' is not a directory"},
		{"a full directory as a file", []tar.Header{file("x/a"), file("x")}, "x: directory not empty"},
		{"a very long name", []tar.Header{file(strings.Repeat("x/", maxName) + "f")}, "is too long"},
		{"an empty link", []tar.Header{link("x", "")}, "x: symbolic link has an invalid target"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(victim, []byte("safe"), 0o644); err != nil {
				t.Fatal(err)
			}
			r, _ := unpackTarball(t, tarball(t, tt.entries...), "ch")
			if r.exit != 1 || !strings.HasPrefix(uncoloured(r.log), "error: failed to extract archive (") || !strings.Contains(r.log, tt.want) {
				t.Errorf("exit status %d, log:\n%s", r.exit, r.log)
			}
			want := map[string]string{"victim": "safe"}
			if diff := cmp.Diff(want, tree(t, outside)); diff != "" {
				t.Errorf("outside (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnpackModes(t *testing.T) {
	r, _ := unpackTarball(t, tarball(t, tar.Header{Name: "x", Typeflag: tar.TypeDir, Mode: 0o020},
		tar.Header{Name: "x/exec", Mode: 0o4755}, tar.Header{Name: "x/plain", Mode: 0o604}), "ch")
	for name, want := range map[string]os.FileMode{"ch": 0o700 | os.ModeDir, "ch/exec": 0o755, "ch/plain": 0o604} {
		info, err := os.Stat(filepath.Join(r.out, name))
		if err != nil {
			t.Fatalf("%v, log:\n%s", err, r.log)
		}
		// The umask of whoever tests may take away the rights of others.
		if got := info.Mode(); got&^0o077 != want&^0o077 || got&os.ModeSetuid != 0 {
			t.Errorf("%s has mode %v, want %v", name, got, want)
		}
	}
}

// bzipped is the archive of the file x with the contents "x\n", as bzip2 compresses it: the standard library cannot.
const bzipped = "QlpoOTFBWSZTWZa/KO8AAHb7hMkQAEBAAHWAAADgAJ5AAACACCAAVCSpp6jJo0xNPQJITU0HqAB197lEIQXlJCLNV6apkpkkDhm8duPYW+wizIh6d2bniBXowYb52HeuYpINC7kinChIS1+Ud4A="

func TestUnpackCompressed(t *testing.T) {
	plain := tarball(t, file("x"))
	for name, compress := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	} {
		t.Run(name, func(t *testing.T) {
			archive := compressed(t, compress, plain)
			r, _ := unpackTarball(t, archive, "ch")
			if diff := cmp.Diff(map[string]string{"ch": "x"}, tree(t, r.out)); r.exit != 0 || diff != "" {
				t.Errorf("exit status %d, log:\n%s(-want +got):\n%s", r.exit, r.log, diff)
			}
			// The index at the end of xz is no part of the archive, so less is not noticed to be missing.
			r, _ = unpackTarball(t, archive[:len(archive)/2], "ch")
			if r.exit != 1 {
				t.Error("half of an archive is accepted")
			}
		})
	}
}

func TestUnpackBzip2(t *testing.T) {
	archive, err := base64.StdEncoding.DecodeString(bzipped)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := unpackTarball(t, archive, "ch")
	if diff := cmp.Diff(map[string]string{"ch": "x\n"}, tree(t, r.out)); r.exit != 0 || diff != "" {
		t.Errorf("exit status %d, log:\n%s(-want +got):\n%s", r.exit, r.log, diff)
	}
}

func compressed(t testing.TB, compress func(io.Writer) (io.WriteCloser, error), data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := compress(&b)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The texts are those of release 2.34.8.
func TestUnpackChannelErrors(t *testing.T) {
	one := tarball(t, file("x"))
	for _, tt := range []struct {
		name, channel string
		archive       []byte
		want          string
	}{
		{"separator", "a/b", one, "error: channelName is not allowed to contain filesystem separators, got a/b"},
		{"two files", "ch", tarball(t, file("x"), file("y")), "error: channel tarball 'SRC' contains more than one file"},
		{"many files", "ch", tarball(t, file("x"), file("y"), file("z")), "error: channel tarball 'SRC' contains more than one file"},
		{"no file", "ch", tarball(t), "error: channel tarball 'SRC' is empty"},
		{"empty file", "ch", nil, "error: channel tarball 'SRC' is empty"},
		{"no archive", "ch", []byte(strings.Repeat("nothing like it ", 64)), "error: failed to open archive: Unrecognized archive format"},
		{"short and no archive", "ch", []byte("x"), "error: failed to open archive: Unrecognized archive format"},
		{"truncated gzip", "ch", []byte("\x1f\x8b\x08\x00"), "error: failed to open archive: truncated gzip input"},
		{"the parent", "..", one, "error: failed to rename OUT/x to OUT/..: Device or resource busy"},
		{"itself", ".", one, "error: failed to rename OUT/x to OUT/.: Device or resource busy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, src := unpackTarball(t, tt.archive, tt.channel)
			r.fails(t, strings.ReplaceAll(tt.want, "SRC", src))
		})
	}
	src := t.TempDir()
	do(t, "unpack-channel", builtinjob.Job{Env: map[string]string{"channelName": "c", "src": src}}).
		fails(t, "error: failed to open archive: Error reading '"+src+"'")
	do(t, "unpack-channel", builtinjob.Job{Env: map[string]string{"channelName": "c", "src": src + "/none"}}).
		fails(t, "error: failed to open archive: Failed to open '"+src+"/none'")
}

// An output that is a link is not unpacked through.
func TestUnpackOutputIsLink(t *testing.T) {
	top := plant(t, map[string]string{"elsewhere/": "", "out": "->TOP/elsewhere", "src": string(tarball(t, file("x")))})
	r := do(t, "unpack-channel", builtinjob.Job{Env: map[string]string{"channelName": "c", "src": top + "/src"},
		Outputs: map[string]string{"out": top + "/out"}})
	if r.exit != 1 || len(tree(t, top+"/elsewhere")) != 0 {
		t.Errorf("exit status %d, log:\n%s", r.exit, r.log)
	}
}

func TestUnpackUpstream(t *testing.T) {
	archive := tarball(t, dir("x"), file("x/a"), hard("x/b", "x/a"), link("x/l", "/etc/passwd"), hard("x/m", "x/l"), file("/x/abs"),
		link("x/a", "t"), dir("x/c"), file("x/c"), file("x/d"), dir("x/d"), file("x/deep/er/f"))
	ours, src := unpackTarball(t, archive, "ch")
	out, log, ok := upstreamBuild(t, `derivation { name = "x"; system = "builtin"; builder = "builtin:unpack-channel"; channelName = "ch"; src = "`+src+`"; }`)
	if !ok || ours.exit != 0 {
		t.Fatalf("upstream succeeds: %v:\n%s\nwe: %d:\n%s", ok, log, ours.exit, ours.log)
	}
	if diff := cmp.Diff(tree(t, out), tree(t, ours.out)); diff != "" {
		t.Errorf("(-upstream +ours):\n%s", diff)
	}
}

// Whatever an archive is, nothing is made beside the output.
func FuzzUnpack(f *testing.F) {
	f.Add(tarball(f, dir("x"), file("x/a"), link("x/l", "/"), hard("x/h", "x/a")))
	f.Add(tarball(f, link("x", ".."), file("x/evil")))
	f.Add(tarball(f, file("../evil"), hard("y", "../evil")))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		top := t.TempDir()
		src := filepath.Join(top, "src")
		if err := os.WriteFile(src, archive, 0o644); err != nil {
			t.Fatal(err)
		}
		do(t, "unpack-channel", builtinjob.Job{Env: map[string]string{"channelName": "c", "src": src},
			Outputs: map[string]string{"out": filepath.Join(top, "out")}})
		entries, err := os.ReadDir(top)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if name := entry.Name(); name != "src" && name != "out" {
				t.Errorf("made '%s' beside the output", name)
			}
		}
		if text, err := os.ReadFile(src); err != nil || !bytes.Equal(text, archive) {
			t.Error("changed the archive")
		}
	})
}
