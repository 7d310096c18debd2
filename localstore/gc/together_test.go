package gc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/localstore/roots"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// together is one store that processes of both implementations use at the same time.
type together struct {
	*fixture
	u   *upstream
	top string
}

// instantiate has an upstream process add a source and a derivation that refers to it, and make a root of the latter.
func (tg *together) instantiate(name string) error {
	source := filepath.Join(tg.top, name)
	if err := os.WriteFile(source, []byte(name), 0o600); err != nil {
		return err
	}
	expression := fmt.Sprintf(`derivation { name = "drv-%s"; system = "x"; builder = "/b"; source = %s; }`, name, source)
	cmd := tg.u.command("--add-root", filepath.Join(tg.top, "root-"+name), "--indirect", "-E", expression)
	cmd.Path, cmd.Args[0] = filepath.Join(tg.u.dir, "nix-instantiate"), "nix-instantiate"
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// add does the same through our store, as a connection of a daemon would.
func (tg *together) add(name string) error {
	ctx := context.Background()
	temp := tg.NewTempRoots()
	defer temp.Close()
	o := localstore.AddOptions{Roots: temp}
	spec := localstore.DumpSpec{Name: "source-" + name, Method: storepath.MethodText, Algo: nixhash.SHA256}
	source, err := tg.AddDump(ctx, spec, strings.NewReader(name), o)
	if err != nil {
		return err
	}
	spec.Name, spec.References = "text-"+name, []storepath.Path{source.Path}
	text, err := tg.AddDump(ctx, spec, strings.NewReader(tg.dir.Print(source.Path)), o)
	if err != nil {
		return err
	}
	_, err = tg.AddPermRoot(ctx, text.Path, filepath.Join(tg.top, "root-"+name))
	return err
}

// TestBothImplementationsTogether has collectors and clients of both work on one store: all that a client was told is a
// root is valid in the end, with all that it refers to.
func TestBothImplementationsTogether(t *testing.T) {
	dir := findUpstream(t)
	f := newFixture(t, chain(2000))
	tg := &together{fixture: f, u: &upstream{f, dir}, top: filepath.Dir(string(f.dir))}
	tg.u.needSocket()
	times := differentialCases(t, 12)
	var clients, collectors sync.WaitGroup
	stop := make(chan struct{})
	collect := func(once func() error) {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				if n == 0 {
					t.Error("a collector never ran")
				}
				return
			default:
			}
			if err := once(); err != nil {
				t.Error(err)
				return
			}
		}
	}
	collectors.Go(func() {
		c := f.collector(nil)
		collect(func() error {
			_, err := c.Collect(context.Background(), wholeStore(DeleteDead))
			return err
		})
	})
	collectors.Go(func() {
		collect(func() error {
			if out, err := tg.u.command("--gc").CombinedOutput(); err != nil {
				return errors.Join(err, errors.New(string(out)))
			}
			return nil
		})
	})
	for i, client := range []func(string) error{tg.instantiate, tg.instantiate, tg.add, tg.add} {
		clients.Go(func() {
			for n := range times {
				if err := client(fmt.Sprintf("%d-%d", i, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	collectors.Wait()
	tg.checkRoots(4 * times)
}

// checkRoots demands that so many links lead to what is whole.
func (tg *together) checkRoots(want int) {
	tg.t.Helper()
	found, err := roots.Permanent(context.Background(), roots.Options{Dir: tg.dir, StateDir: tg.opt.StateDir, Valid: tg.ValidPaths})
	if err != nil {
		tg.t.Fatal(err)
	}
	links := 0
	for _, labels := range found {
		links += len(labels)
	}
	if links != want {
		tg.t.Errorf("%d of %d roots lead to valid paths", links, want)
	}
	tg.verify()
	tg.u.run("--verify", "--check-contents")
}
