package forward_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/forward"
	remote "nixdaemon/worker/remote/peer"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// fakePeer is a store in memory, as far as the serve protocol reaches.
type fakePeer struct {
	remote.Store // panics for the rest
	infos        []*pathinfo.Info
	data         map[storepath.Path][]byte
	asked        []remote.BuildOptions
	closed       bool
}

func (f *fakePeer) URI() string        { return "ssh://far" }
func (f *fakePeer) Dir() storepath.Dir { return storepath.DefaultDir }
func (f *fakePeer) Close() error       { f.closed = true; return nil }

func (f *fakePeer) PathInfos(_ context.Context, paths []storepath.Path) ([]*pathinfo.Info, error) {
	var found []*pathinfo.Info
	for _, info := range f.infos {
		if slices.Contains(paths, info.Path) {
			found = append(found, info)
		}
	}
	return found, nil
}

func (f *fakePeer) ValidPaths(ctx context.Context, paths []storepath.Path, substitute bool) ([]storepath.Path, error) {
	var valid []storepath.Path
	infos, err := f.PathInfos(ctx, paths)
	for _, info := range infos {
		valid = append(valid, info.Path)
	}
	return valid, err
}

func (f *fakePeer) Import(ctx context.Context, infos []*pathinfo.Info, nar func(context.Context, *pathinfo.Info, io.Writer) error, _ remote.ImportOptions) error {
	for _, info := range infos {
		var b bytes.Buffer
		if err := nar(ctx, info, &b); err != nil {
			return err
		}
		f.infos = append(f.infos, info)
		f.data[info.Path] = b.Bytes()
	}
	return nil
}

func (f *fakePeer) NAR(_ context.Context, p storepath.Path) (io.ReadCloser, error) {
	data, ok := f.data[p]
	if !ok {
		return nil, errors.New("gone")
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (f *fakePeer) BuildPathsWithResults(_ context.Context, paths []derivation.DerivedPath, o remote.BuildOptions) ([]derivation.KeyedBuildResult, error) {
	f.asked = append(f.asked, o)
	return make([]derivation.KeyedBuildResult, len(paths)), nil
}

func servedPath(t *testing.T, base, text string) (*pathinfo.Info, []byte) {
	t.Helper()
	data := nartest.File(text)
	p, err := storepath.ParseBase(base)
	if err != nil {
		t.Fatal(err)
	}
	return &pathinfo.Info{Path: p, NarHash: nixhash.Of(nixhash.SHA256, string(data)), NarSize: uint64(len(data))}, data
}

func TestServed(t *testing.T) {
	ctx := t.Context()
	f := &fakePeer{data: map[storepath.Path][]byte{}}
	s := forward.NewServed(f, derivation.AllFeatures())
	info, data := servedPath(t, "00000000000000000000000000000001-a", "contents")
	other, otherData := servedPath(t, "00000000000000000000000000000002-b", "others")
	stream := bytes.NewReader(slices.Concat(data, otherData))
	queue := []*pathinfo.Info{info, other}
	err := s.AddNARs(ctx, func() (*pathinfo.Info, io.Reader, error) {
		if len(queue) == 0 {
			return nil, nil, io.EOF
		}
		next := queue[0]
		queue = queue[1:]
		return next, stream, nil
	}, localstore.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if valid, err := s.IsValid(ctx, info.Path); !valid || err != nil {
		t.Errorf("valid %v, %v", valid, err)
	}
	if _, err := s.PathInfo(ctx, storepath.Path{}); !errors.As(err, new(*localstore.NotValidError)) {
		t.Errorf("a path that is not there: %v", err)
	}
	var exported bytes.Buffer
	if err := s.ExportPath(ctx, other.Path, &exported); err != nil {
		t.Error(err)
	}
	if !bytes.Contains(exported.Bytes(), otherData) {
		t.Error("the export lacks the archive")
	}
	back := forward.NewServed(&fakePeer{data: map[storepath.Path][]byte{}}, derivation.AllFeatures())
	paths, err := back.ImportPaths(ctx, bytes.NewReader(slices.Concat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, exported.Bytes(), make([]byte, 8))), localstore.AddOptions{})
	if err != nil || !slices.Equal(paths, []storepath.Path{other.Path}) {
		t.Errorf("%v, %v", paths, err)
	}
	if err := s.Roots().Close(); err != nil || !f.closed {
		t.Errorf("closed %v, %v", f.closed, err)
	}
}

// TestServedUntrusted: the other machine checks no signatures, so we do.
func TestServedUntrusted(t *testing.T) {
	f := &fakePeer{data: map[storepath.Path][]byte{}}
	s := forward.NewServed(f, derivation.AllFeatures())
	info, data := servedPath(t, "00000000000000000000000000000001-a", "contents")
	s.Follow(&session.Session{Settings: &settings.Settings{}, Log: activity.Discard{}})
	stream := bytes.NewReader(append(data, "rest"...))
	err := s.AddNAR(t.Context(), info, stream, localstore.AddOptions{RequireSigs: true})
	if err == nil || !strings.Contains(err.Error(), "lacks a signature by a trusted key") || len(f.infos) > 0 {
		t.Errorf("%d paths, %v", len(f.infos), err)
	}
	if stream.Len() != len("rest") {
		t.Errorf("%d bytes are left", stream.Len())
	}
	s.Follow(&session.Session{Trusted: true, Settings: &settings.Settings{MaxBuildLogSize: 7, KeepFailed: true}, Log: activity.Discard{}})
	if err := s.AddNAR(t.Context(), info, bytes.NewReader(data), localstore.AddOptions{RequireSigs: true}); err != nil {
		t.Error(err)
	}
	drv, err := storepath.ParseBase("00000000000000000000000000000003-c.drv")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.BuildPaths(t.Context(), nil, []derivation.DerivedPath{{Path: drv}}, derivation.BuildNormal); err == nil || !strings.Contains(err.Error(), "Try using ssh-ng://") {
		t.Errorf("a derivation to be fetched: %v", err)
	}
	if err := s.BuildPaths(t.Context(), nil, []derivation.DerivedPath{{Path: info.Path}}, derivation.BuildNormal); err != nil || f.asked[0].MaxLogSize != 7 || !f.asked[0].KeepFailed {
		t.Errorf("%+v, %v", f.asked, err)
	}
}

func TestServedLacks(t *testing.T) {
	ctx := t.Context()
	s := forward.NewServed(&fakePeer{}, derivation.AllFeatures())
	_, all := s.AllValidPaths(ctx)
	_, referrers := s.Referrers(ctx, storepath.Path{})
	_, part := s.PathFromHashPart(ctx, "")
	_, dump := s.AddDump(ctx, localstore.DumpSpec{}, nil, localstore.AddOptions{})
	_, perm := s.AddPermRoot(ctx, storepath.Path{}, "")
	_, roots := s.FindRoots(ctx, nil, false)
	_, collect := s.Collect(ctx, nil, protocol.GCRequest{})
	for want, err := range map[string]error{
		"operation 'queryAllValidPaths' is not supported by store 'ssh://far'":    all,
		"operation 'queryReferrers' is not supported by store 'ssh://far'":        referrers,
		"operation 'queryPathFromHashPart' is not supported by store 'ssh://far'": part,
		"operation 'addToStore' is not supported by store 'ssh://far'":            dump,
		"operation 'ensurePath' is not supported by store 'ssh://far'":            s.EnsurePath(ctx, nil, storepath.Path{}),
		"operation 'repairPath' is not supported by store 'ssh://far'":            s.RepairPath(ctx, nil, storepath.Path{}),
		"Local Filesystem Store not supported by store 'ssh://far'":               perm,
		"Garbage collection not supported by store 'ssh://far'":                   roots,
		"Indirect GC roots registration not supported by store 'ssh://far'":       s.AddIndirectRoot(ctx, ""),
		"Build log storage and retrieval not supported by store 'ssh://far'":      s.AddBuildLog(ctx, storepath.Path{}, nil),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if collect == nil || collect.Error() != roots.Error() {
		t.Errorf("a collection: %v", collect)
	}
}
