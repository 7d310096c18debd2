package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/protocoltest"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

func testPath(t testing.TB, name string) storepath.Path {
	t.Helper()
	p, err := storepath.ParseBase("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-" + name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// memory is a store that keeps what it is asked.
type memory struct {
	infos map[storepath.Path]*pathinfo.Info
	nars  map[storepath.Path][]byte
	asked []string
	// fails is the error of builds.
	fails error
	// lazy does not read archives.
	lazy bool
}

func (m *memory) note(format string, args ...any) {
	m.asked = append(m.asked, fmt.Sprintf(format, args...))
}

func (m *memory) ValidPaths(_ context.Context, req ValidPathsRequest) (valid []storepath.Path, err error) {
	m.note("valid lock=%v substitute=%v", req.Lock, req.Substitute)
	for _, p := range req.Paths {
		if m.infos[p] != nil {
			valid = append(valid, p)
		}
	}
	return valid, nil
}

func (m *memory) PathInfo(_ context.Context, p storepath.Path) (*pathinfo.Info, error) {
	return m.infos[p], nil
}

func (m *memory) Dump(_ context.Context, p storepath.Path, w io.Writer) error {
	if m.nars[p] == nil {
		return errors.New("no such path")
	}
	_, err := w.Write(m.nars[p])
	return err
}

func (m *memory) Import(_ context.Context, r *wire.Reader) error {
	text, err := r.String(100)
	m.note("import %s", text)
	return err
}

func (m *memory) BuildPaths(_ context.Context, req BuildPathsRequest) error {
	for _, p := range req.Paths {
		m.note("build %s", p.Format(storepath.DefaultDir, "!"))
	}
	m.note("%+v", req.Options)
	return m.fails
}

func (m *memory) Closure(_ context.Context, paths []storepath.Path, includeOutputs bool) ([]storepath.Path, error) {
	m.note("closure outputs=%v", includeOutputs)
	return paths, nil
}

func (m *memory) BuildDerivation(_ context.Context, req BuildDerivationRequest) (derivation.BuildResult, error) {
	m.note("build derivation %s %s %+v", req.DrvPath, req.Derivation.Builder, req.Options)
	return derivation.BuildResult{Status: derivation.StatusBuilt, TimesBuilt: 1, StartTime: 2, StopTime: 3,
		BuiltOutputs: map[string]pathinfo.Realisation{"out": {ID: pathinfo.DrvOutput{Output: "out"}, OutPath: req.Derivation.Outputs["out"].Path}}}, nil
}

func (m *memory) Add(_ context.Context, info *pathinfo.Info, r io.Reader) error {
	m.note("add %s", info.Path)
	if m.lazy {
		return nil
	}
	data, err := io.ReadAll(r)
	if m.infos == nil {
		m.infos, m.nars = map[storepath.Path]*pathinfo.Info{}, map[storepath.Path][]byte{}
	}
	m.infos[info.Path], m.nars[info.Path] = info, data
	return err
}

// converse runs a server over m, and f as its client.
func converse(t *testing.T, m *memory, server, client Version, write bool, f func(*Conn)) error {
	t.Helper()
	a, b := protocoltest.Pipe(t)
	done := make(chan error, 1)
	go func() {
		err := Serve(context.Background(), b, m, Options{Dir: storepath.DefaultDir, Version: server, Write: write, Features: derivation.AllFeatures()})
		b.Close()
		done <- err
	}()
	c, err := Dial(a, storepath.DefaultDir, client, "host")
	if err != nil {
		t.Fatal(err)
	}
	c.Features(derivation.AllFeatures())
	f(c)
	a.Close()
	return <-done
}

// TestConversation makes each request in each version.
func TestConversation(t *testing.T) {
	for minor := uint8(5); minor <= 8; minor++ {
		t.Run(at(minor).String(), func(t *testing.T) {
			m := &memory{}
			err := converse(t, m, Latest, at(minor), true, func(c *Conn) { talk(t, c, minor) })
			if err != nil {
				t.Errorf("server: %v", err)
			}
			kept := minor >= 7
			drv := testPath(t, "x.drv")
			o := fmt.Sprintf("{MaxSilentTime:1 BuildTimeout:2 MaxLogSize:3 Repeats:0 EnforceDeterminism:false KeepFailed:%v Version:2.%d}", kept, minor)
			want := []string{"add " + testPath(t, "a").Base(), "valid lock=true substitute=false", "closure outputs=true",
				"import exported", "build /nix/store/" + drv.Base() + "!a,b", "build /nix/store/" + drv.Base() + "!*",
				"build /nix/store/" + testPath(t, "a").Base(), o, "build derivation " + drv.Base() + " /bin/sh " + o}
			if diff := cmp.Diff(want, m.asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

func talk(t *testing.T, c *Conn, minor uint8) {
	t.Helper()
	a, b, drv := testPath(t, "a"), testPath(t, "b"), testPath(t, "x.drv")
	archive := nartest.File("text")
	hash := must(nixhash.ParseAny(strings.Repeat("0", 52), nixhash.SHA256))(t)
	info := &pathinfo.Info{Path: a, Deriver: drv, NarHash: hash, NarSize: uint64(len(archive)), References: []storepath.Path{a, b}, Ultimate: true}
	writeAll := func(w io.Writer) error { _, err := w.Write(archive); return err }
	if err := c.Add(info, writeAll); err != nil {
		t.Fatal(err)
	}
	valid := must(c.ValidPaths(ValidPathsRequest{Lock: true, Paths: []storepath.Path{a, b}}))(t)
	if !slices.Equal(valid, []storepath.Path{a}) {
		t.Errorf("valid %v", valid)
	}
	infos := must(c.PathInfos([]storepath.Path{b, a}))(t)
	want := *info
	want.Ultimate = false // not told
	if len(infos) != 1 || !cmp.Equal(*infos[0], want, cmp.AllowUnexported(storepath.Path{}, nixhash.Hash{}, storepath.ContentAddress{})) {
		t.Errorf("infos %+v, want %+v", infos, want)
	}
	var dumped bytes.Buffer
	if err := c.Dump(a, &dumped); err != nil || !bytes.Equal(dumped.Bytes(), archive) {
		t.Errorf("dumped %d bytes, %v", dumped.Len(), err)
	}
	if closure := must(c.Closure([]storepath.Path{a, b}, true))(t); len(closure) != 2 {
		t.Errorf("closure %v", closure)
	}
	err := c.Import(func(w io.Writer) error {
		out := wire.NewWriter(w)
		out.String("exported")
		return out.Flush()
	})
	if err != nil {
		t.Error(err)
	}
	o := BuildOptions{MaxSilentTime: 1, BuildTimeout: 2, MaxLogSize: 3, KeepFailed: true}
	built := &derivation.SingleDerivedPath{Path: drv}
	if err := c.BuildPaths([]derivation.DerivedPath{
		{Drv: built, Outputs: derivation.OutputsSpec{Names: []string{"a", "b"}}}, {Drv: built, Outputs: derivation.OutputsSpec{All: true}}, {Path: a},
	}, o); err != nil {
		t.Error(err)
	}
	basic := &derivation.BasicDerivation{Name: "x", Builder: "/bin/sh", Platform: "any",
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.InputAddressed, Path: b}}}
	res := must(c.BuildDerivation(BuildDerivationRequest{DrvPath: drv, Derivation: basic, Options: o}))(t)
	if res.Status != derivation.StatusBuilt || res.StopTime != 3 || minor >= 6 && res.BuiltOutputs["out"].OutPath != b {
		t.Errorf("result %+v", res)
	}
}

// TestRefusals has requests that cannot be expressed, and builds that fail.
func TestRefusals(t *testing.T) {
	drv := testPath(t, "x.drv")
	m := &memory{fails: &BuildFailure{Status: 100, Message: "error: it broke"}}
	err := converse(t, m, Latest, Latest, true, func(c *Conn) {
		inner := &derivation.SingleDerivedPath{Drv: &derivation.SingleDerivedPath{Path: drv}, Output: "out"}
		for _, tt := range []struct {
			path derivation.DerivedPath
			want string
		}{
			{derivation.DerivedPath{Path: drv}, "wanted to fetch '/nix/store/" + drv.Base() + "' but the legacy ssh protocol doesn't support merely substituting drv files via the build paths command. It would build them instead. Try using ssh-ng://"},
			{derivation.DerivedPath{Drv: inner}, "wanted build derivation that is itself a build product, but the legacy ssh protocol doesn't support that. Try using ssh-ng://"},
			{derivation.DerivedPath{Path: testPath(t, "a")}, "error: it broke"},
			{derivation.DerivedPath{Path: testPath(t, "a")}, "error: it broke"}, // the connection goes on
		} {
			err := c.BuildPaths([]derivation.DerivedPath{tt.path}, BuildOptions{})
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		}
	})
	if err != nil {
		t.Errorf("server: %v", err)
	}
}

// TestUnwritable has derivations that no request can hold: nothing of them is
// sent, and the connection goes on.
func TestUnwritable(t *testing.T) {
	long := derivation.Output{Kind: derivation.FixedCA, CA: must(storepath.ParseContentAddress("fixed:sha256:" + strings.Repeat("0", 52)))(t)}
	var m memory
	if err := converse(t, &m, Latest, Latest, true, func(c *Conn) {
		_, err := c.BuildDerivation(BuildDerivationRequest{DrvPath: testPath(t, "x.drv"), Derivation: &derivation.BasicDerivation{
			Name: "x", Outputs: map[string]derivation.Output{strings.Repeat("o", 300): long},
		}})
		if err == nil {
			t.Error("the output's name is taken")
		}
		if _, err := c.ValidPaths(ValidPathsRequest{}); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"valid lock=false substitute=false"}, m.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// TestServerErrors shows what ends a conversation: the client sees its end, the
// server's starter why.
func TestServerErrors(t *testing.T) {
	a := testPath(t, "a")
	info := &pathinfo.Info{Path: a, NarHash: must(nixhash.ParseAny(strings.Repeat("0", 52), nixhash.SHA256))(t)}
	none := func(io.Writer) error { return nil }
	basic := &derivation.BasicDerivation{Name: "x", Outputs: map[string]derivation.Output{"out": {Kind: derivation.InputAddressed, Path: a}}}
	tests := []struct {
		name  string
		write bool
		ask   func(*Conn) error
		want  string
	}{
		{"import", false, func(c *Conn) error { return c.Import(none) }, "importing paths is not allowed"},
		{"add", false, func(c *Conn) error { return c.Add(info, none) }, "importing paths is not allowed"},
		{"build", false, func(c *Conn) error { return c.BuildPaths(nil, BuildOptions{}) }, "building paths is not allowed"},
		{"derivation", false, func(c *Conn) error {
			_, err := c.BuildDerivation(BuildDerivationRequest{DrvPath: testPath(t, "x.drv"), Derivation: basic})
			return err
		}, "building paths is not allowed"},
		{"no size", true, func(c *Conn) error { return c.Add(info, none) }, "narInfo is too old and missing the narSize field"},
		{"repeats", true, func(c *Conn) error { return c.BuildPaths(nil, BuildOptions{Repeats: 1}) },
			"client requested repeating builds, but this is not currently implemented"},
		{"no path", true, func(c *Conn) error { return c.Dump(a, io.Discard) }, "no such path"},
		{"unknown", true, func(c *Conn) error {
			c.out.Command(5)
			c.send()
			_, err := c.in.Uint64()
			return lost(err)
		}, "unknown serve command 5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := converse(t, &memory{}, Latest, Latest, tt.write, func(c *Conn) {
				// With a pipe that holds nothing, the end may come while the request is written.
				if err := tt.ask(c); err == nil || err != ErrDisconnected && !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("client sees %v", err)
				}
			})
			if err == nil || err.Error() != tt.want {
				t.Errorf("server: %v, want %s", err, tt.want)
			}
		})
	}
}

// TestReadOnly drops wishes that need --write.
func TestReadOnly(t *testing.T) {
	m := &memory{}
	if err := converse(t, m, Latest, Latest, false, func(c *Conn) {
		if _, err := c.ValidPaths(ValidPathsRequest{Lock: true, Substitute: true, Paths: []storepath.Path{testPath(t, "a")}}); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"valid lock=false substitute=false"}, m.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// TestUnreadArchive has a store that does not look at the archive.
func TestUnreadArchive(t *testing.T) {
	archive := nartest.File(strings.Repeat("x", 100000))
	info := &pathinfo.Info{Path: testPath(t, "a"), NarHash: must(nixhash.ParseAny(strings.Repeat("0", 52), nixhash.SHA256))(t), NarSize: uint64(len(archive))}
	err := converse(t, &memory{lazy: true}, Latest, Latest, true, func(c *Conn) {
		for range 2 {
			if err := c.Add(info, func(w io.Writer) error { _, err := w.Write(archive); return err }); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// script is a stream whose other side says what is given.
type script struct {
	io.Reader
	io.Writer
}

func numbers(ns ...uint64) io.Reader {
	var b bytes.Buffer
	w := wire.NewWriter(&b)
	for _, n := range ns {
		w.Uint64(n)
	}
	w.Flush()
	return &b
}

func TestDialErrors(t *testing.T) {
	tests := []struct {
		name string
		says io.Reader
		want string
	}{
		{"nothing", strings.NewReader(""), "cannot connect to 'host'"},
		{"a shell", strings.NewReader("sh: nix-store: not found\n"), "'nix-store --serve' protocol mismatch from 'host', got 'sh: nix-store: not found'"},
		{"much", strings.NewReader(strings.Repeat("x", 1<<20)), "'nix-store --serve' protocol mismatch from 'host', got '" + strings.Repeat("x", 64<<10) + "'"},
		{"magic", numbers(1, 2), "'nix-store --serve' protocol mismatch from 'host'"},
		{"old", numbers(serverMagic, uint64(at(4))), "unsupported 'nix-store --serve' protocol version on 'host'"},
		{"major", numbers(serverMagic, 3<<8), "unsupported 'nix-store --serve' protocol version on 'host'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Dial(script{tt.says, io.Discard}, storepath.DefaultDir, Latest, "host")
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %.200v, want %.200s", err, tt.want)
			}
		})
	}
	err := Serve(t.Context(), script{numbers(1), io.Discard}, &memory{}, Options{Dir: storepath.DefaultDir})
	if !errors.Is(err, ErrMagic) {
		t.Errorf("server: %v", err)
	}
}

// TestLyingServer is told of paths that it was not asked about.
func TestLyingServer(t *testing.T) {
	var says bytes.Buffer
	w := NewWriter(wire.NewWriter(&says), storepath.DefaultDir, Latest)
	w.Uint64(serverMagic)
	w.Uint64(uint64(Latest))
	w.StorePath(testPath(t, "b"))
	w.Flush()
	c, err := Dial(script{&says, io.Discard}, storepath.DefaultDir, Latest, "host")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PathInfos([]storepath.Path{testPath(t, "a")}); err == nil || err.Error() != "More path infos returned than queried" {
		t.Errorf("error %v", err)
	}
}
