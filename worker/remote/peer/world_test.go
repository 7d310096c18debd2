package peer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/workertest"
)

// rootVar names the variable that makes this program a daemon over the store
// beneath a directory, on its standard input and output.
const rootVar = "PEER_TEST_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(rootVar); root != "" {
		os.Exit(daemonMain(root))
	}
	os.Exit(m.Run())
}

// daemonMain speaks the protocol that the command line says.
func daemonMain(root string) int {
	fmt.Fprintln(os.Stderr, "serving", strings.Join(os.Args[1:], " "))
	ctx := context.Background()
	stream := struct {
		io.Reader
		io.Writer
	}{os.Stdin, os.Stdout}
	d, err := workertest.Open(ctx, root)
	if err == nil {
		if slices.Contains(os.Args, "--serve") {
			err = d.Converse(ctx, stream, slices.Contains(os.Args, "--write"))
		} else {
			err = d.Serve(ctx, stream)
		}
		err = errors.Join(err, d.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// openStore opens a reference as a test wants it.
func openStore(t testing.TB, uri string, o peer.Options) peer.Store {
	t.Helper()
	ref, err := settings.ParseStoreReference(uri)
	if err != nil {
		t.Fatal(err)
	}
	if o.Stderr == nil {
		o.Stderr = func(line string) { t.Log("stderr: " + line) }
	}
	o.Features = derivation.AllFeatures()
	s, err := peer.Open(t.Context(), ref, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// thing is a path that is a file.
type thing struct {
	info *pathinfo.Info
	nar  []byte
}

func newThing(t testing.TB, dir storepath.Dir, name, text string, refs ...storepath.Path) thing {
	t.Helper()
	for _, ref := range refs {
		text += dir.Print(ref)
	}
	archive := nartest.File(text)
	hash := nixhash.Of(nixhash.SHA256, string(archive))
	var part [20]byte
	copy(part[:], hash.Digest())
	p, err := storepath.New(part, name)
	if err != nil {
		t.Fatal(err)
	}
	return thing{nar: archive, info: &pathinfo.Info{
		Path: p, NarHash: hash, NarSize: uint64(len(archive)), References: storepath.SortUnique(refs), RegistrationTime: 1,
	}}
}

// recorder keeps what a daemon tells.
type recorder struct {
	activity.Discard
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Result(_ activity.ID, kind activity.ResultType, fields []activity.Field) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if kind == activity.BuildLogLine {
		r.lines = append(r.lines, fields[0].Text)
	}
}
