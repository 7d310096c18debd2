package build

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
)

// describe prints entries, one a line, contents of files indented.
func describe(entries []sandbox.Entry) string {
	kinds := map[sandbox.EntryKind]string{sandbox.EntryDir: "dir", sandbox.EntryFile: "file", sandbox.EntryLink: "link", sandbox.EntryBind: "bind",
		sandbox.EntryProc: "proc", sandbox.EntrySys: "sys", sandbox.EntryTmpfs: "tmpfs", sandbox.EntryPts: "pts"}
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s %s", kinds[e.Kind], e.Target)
		if e.Source != "" {
			fmt.Fprintf(&b, " < %s", e.Source)
		}
		if e.Mode != 0 {
			fmt.Fprintf(&b, " %o", uint32(e.Mode))
		}
		for _, flag := range []struct {
			name string
			on   bool
		}{{"own", e.Own}, {"ro", e.ReadOnly}, {"fresh", e.Fresh}, {"optional", e.Optional}} {
			if flag.on {
				b.WriteString(" " + flag.name)
			}
		}
		switch {
		case e.Kind == sandbox.EntryFile:
			b.WriteString("\n    " + strings.ReplaceAll(strings.TrimSuffix(e.Text, "\n"), "\n", "\n    "))
		case e.Text != "":
			b.WriteString(" = " + e.Text)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func inputPath(t *testing.T, digit, name string) storepath.Path {
	t.Helper()
	p, err := storepath.ParseBase(strings.Repeat(digit, storepath.HashLen) + "-" + name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const plainRoot = `dir /etc 555
file /etc/passwd 644
    root:x:0:0:Nix build user:/build:/noshell
    nixbld:x:1000:100:Nix build user:/build:/noshell
    nobody:x:65534:65534:Nobody:/:/noshell
file /etc/group 644
    root:x:0:
    nixbld:!:100:
    nogroup:x:65534:
file /etc/hosts 644
    127.0.0.1 localhost
    ::1 localhost
bind /tmp < /c/tmp fresh
bind /nix/store < /c/root/nix/store fresh
link /dev/fd = /proc/self/fd
link /dev/stdin = /proc/self/fd/0
link /dev/stdout = /proc/self/fd/1
link /dev/stderr = /proc/self/fd/2
bind /build < /b/build
bind /dev/null < /dev/null
bind /nix/store/00000000000000000000000000000000-a < /nix/store/00000000000000000000000000000000-a ro
bind /nix/store/11111111111111111111111111111111-b < /nix/store/11111111111111111111111111111111-b ro
proc /proc
tmpfs /dev/shm = 50%
pts /dev/pts
link /dev/ptmx = /dev/pts/ptmx
`

// edit makes an expectation from the plain one: each old line is replaced by the lines that follow it.
func edit(t *testing.T, pairs ...string) string {
	t.Helper()
	text := plainRoot
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("no %q in what is expected", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

func TestRootEntries(t *testing.T) {
	out := inputPath(t, "2", "out")
	tests := []struct {
		name   string
		change func(*rootPlan)
		want   string
	}{
		{"plain", func(*rootPlan) {}, plainRoot},
		{"network", func(r *rootPlan) {
			r.network = true
			r.paths["/etc/hosts"] = hostPath{source: "/etc/static/hosts", readOnly: true}
			r.paths["/etc/ssl/certs/ca-certificates.crt"] = hostPath{source: "/ca.crt", optional: true, readOnly: true}
		}, edit(t, "file /etc/hosts 644\n    127.0.0.1 localhost\n    ::1 localhost\n", "file /etc/nsswitch.conf 644\n    hosts: files dns\n    services: files\n",
			"bind /dev/null < /dev/null\n", "bind /dev/null < /dev/null\nbind /etc/hosts < /etc/static/hosts ro\n"+
				"bind /etc/ssl/certs/ca-certificates.crt < /ca.crt ro optional\n")},
		{"range of ids", func(r *rootPlan) { r.uid, r.gid, r.manyIDs = 0, 0, true },
			edit(t, "dir /etc 555", "dir /etc 755 own", "nixbld:x:1000:100:", "nixbld:x:0:0:", "nixbld:!:100:", "nixbld:!:0:", "proc /proc\n", "proc /proc\nsys /sys\n")},
		{"another build directory", func(r *rootPlan) {
			r.buildDir = "/work"
			delete(r.paths, "/build")
			r.paths["/work"] = hostPath{source: "/b/build"}
		}, edit(t, "user:/build:", "user:/work:", "user:/build:", "user:/work:",
			"bind /build < /b/build\nbind /dev/null < /dev/null\n", "bind /dev/null < /dev/null\nbind /work < /b/build\n")},
		{"devices of the user's", func(r *rootPlan) {
			delete(r.paths, "/dev/null")
			r.paths["/dev"] = hostPath{source: "/dev"}
		}, edit(t, "link /dev/fd = /proc/self/fd\nlink /dev/stdin = /proc/self/fd/0\nlink /dev/stdout = /proc/self/fd/1\nlink /dev/stderr = /proc/self/fd/2\n", "",
			"bind /dev/null < /dev/null\n", "bind /dev < /dev\n", "pts /dev/pts\nlink /dev/ptmx = /dev/pts/ptmx\n", "")},
		{"terminals of the user's", func(r *rootPlan) { r.paths["/dev/pts"] = hostPath{source: "/dev/pts"} },
			edit(t, "bind /dev/null < /dev/null\n", "bind /dev/null < /dev/null\nbind /dev/pts < /dev/pts\n", "pts /dev/pts\nlink /dev/ptmx = /dev/pts/ptmx\n", "")},
		{"no such devices", func(r *rootPlan) { r.shmSize, r.pts = "", false },
			edit(t, "tmpfs /dev/shm = 50%\npts /dev/pts\nlink /dev/ptmx = /dev/pts/ptmx\n", "")},
		{"builtin", func(r *rootPlan) { r.builtin = "/usr/bin/nix-daemon" }, plainRoot + "bind /.nix-daemon < /usr/bin/nix-daemon ro\n"},
		{"paths above and in the store", func(r *rootPlan) {
			r.paths["/nix"] = hostPath{source: "/other"}
			r.paths["/bin/sh"] = hostPath{source: "/nix/store/0-sh/bin/sh"}
			r.paths["/bin"] = hostPath{source: "/usr/bin", optional: true}
			r.paths["/proc"] = hostPath{source: "/proc"}
			r.paths["/nix/store/33333333333333333333333333333333-sh"] = hostPath{source: "/nix/store/33333333333333333333333333333333-sh"}
			// An input and an own output stay what they are.
			r.paths["/nix/store/11111111111111111111111111111111-b"] = hostPath{source: "/elsewhere"}
			r.paths["/nix/store/22222222222222222222222222222222-out"] = hostPath{source: "/nix/store/22222222222222222222222222222222-out"}
			r.outputs = []storepath.Path{out}
		}, edit(t, "bind /build < /b/build\n", "bind /bin < /usr/bin optional\nbind /bin/sh < /nix/store/0-sh/bin/sh ro\nbind /build < /b/build\n",
			"bind /dev/null < /dev/null\n", "bind /dev/null < /dev/null\nbind /nix < /other\n", "-b ro\nproc",
			"-b ro\nbind /nix/store/33333333333333333333333333333333-sh < /nix/store/33333333333333333333333333333333-sh ro\nproc")},
		{"own output among the inputs", func(r *rootPlan) { r.inputs, r.outputs = append(r.inputs, out), []storepath.Path{out} }, plainRoot},
		{"diverted store", func(r *rootPlan) { r.realStoreDir = "/mnt/nix/store" },
			edit(t, "-a < /nix", "-a < /mnt/nix", "-b < /nix", "-b < /mnt/nix")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &rootPlan{storeDir: "/nix/store", realStoreDir: "/nix/store", inner: "/c/root/nix/store", tmp: "/c/tmp", buildDir: "/build",
				inputs: []storepath.Path{inputPath(t, "0", "a"), inputPath(t, "1", "b")}, uid: 1000, gid: 100, shmSize: "50%", pts: true,
				paths: sandboxPaths{"/build": {source: "/b/build"}, "/dev/null": {source: "/dev/null"}}}
			tt.change(r)
			if diff := cmp.Diff(strings.Split(tt.want, "\n"), strings.Split(describe(r.entries()), "\n")); diff != "" {
				t.Errorf("entries (-want +got)\n%s", diff)
			}
		})
	}
}

func TestParsePreBuildHook(t *testing.T) {
	tests := []struct {
		name, text string
		want       sandboxPaths
		err        string
	}{
		{"nothing", "", sandboxPaths{}, ""},
		{"paths", "extra-sandbox-paths\n/a\n/b/=/c\n\n", sandboxPaths{"/a": {source: "/a"}, "/b": {source: "/c"}}, ""},
		{"old name", "extra-chroot-dirs\n/a\n", sandboxPaths{"/a": {source: "/a"}}, ""},
		{"twice", "extra-sandbox-paths\n/a\n\nextra-sandbox-paths\n/b\n", sandboxPaths{"/a": {source: "/a"}, "/b": {source: "/b"}}, ""},
		{"last line without end", "extra-sandbox-paths\n/a\n/b", sandboxPaths{"/a": {source: "/a"}}, ""},
		{"command without end", "nonsense", sandboxPaths{}, ""},
		{"unknown command", "extra-sandbox-paths\n/a\n\nnonsense\n", nil, "unknown pre-build hook command 'nonsense'"},
		{"empty line", "\n", nil, "unknown pre-build hook command ''"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := sandboxPaths{}
			err := parsePreBuildHook(tt.text, got)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(hostPath{})); err != nil || diff != "" {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
		})
	}
}
