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

// add does the same through our store, as a connection of a daemon would that stays until the end: a process of
// upstream looks for permanent roots first and for temporary ones then (gc.cc, collectGarbage), and misses what became
// permanent in between.
func (tg *together) add(name string) error {
	ctx := context.Background()
	temp := tg.NewTempRoots()
	tg.t.Cleanup(func() { temp.Close() })
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

// collectOurs is one collection by us.
func (tg *together) collectOurs() error {
	_, err := tg.collector(nil).Collect(context.Background(), wholeStore(DeleteDead))
	return err
}

// collectTheirs is one collection by upstream, which now and then crashes when clients come and go: a process killed.
func (tg *together) collectTheirs() error {
	out, err := tg.u.command("--gc").CombinedOutput()
	if err != nil && !strings.Contains(string(out), "Nix crashed") {
		return errors.Join(err, errors.New(string(out)))
	}
	return nil
}

// TestBothImplementationsTogether has collectors and clients of both work on one store: all that a client was told is a
// root is valid in the end, with all that it refers to. Clients of upstream meet our collectors alone, since they do lose
// roots to their own.
func TestBothImplementationsTogether(t *testing.T) {
	dir := findUpstream(t)
	type actors struct {
		clients    []func(*together, string) error
		collectors []func(*together) error
	}
	ours, theirs := (*together).add, (*together).instantiate
	for name, a := range map[string]actors{
		"our collectors": {
			[]func(*together, string) error{ours, ours, theirs, theirs},
			[]func(*together) error{(*together).collectOurs, (*together).collectOurs},
		},
		"our clients": {
			[]func(*together, string) error{ours, ours, ours, ours},
			[]func(*together) error{(*together).collectOurs, (*together).collectTheirs},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, chain(2000))
			tg := &together{fixture: f, u: &upstream{f, dir}, top: filepath.Dir(string(f.dir))}
			tg.u.needSocket()
			tg.run(a.clients, a.collectors, differentialCases(t, 12))
		})
	}
}

// run lets each client make so many roots while the collectors collect again and again.
func (tg *together) run(clients []func(*together, string) error, collectors []func(*together) error, times int) {
	var making, collecting sync.WaitGroup
	stop := make(chan struct{})
	for _, collect := range collectors {
		collecting.Go(func() {
			for {
				if err := collect(tg); err != nil {
					tg.t.Error(err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i, client := range clients {
		making.Go(func() {
			for n := range times {
				if err := client(tg, fmt.Sprintf("%d-%d", i, n)); err != nil {
					tg.t.Error(err)
				}
			}
		})
	}
	making.Wait()
	close(stop)
	collecting.Wait()
	tg.checkRoots(len(clients), times)
}

// checkRoots demands that the roots of all clients lead to what is whole.
func (tg *together) checkRoots(clients, times int) {
	tg.t.Helper()
	found, err := roots.Permanent(context.Background(), roots.Options{Dir: tg.dir, StateDir: tg.opt.StateDir, Valid: tg.ValidPaths})
	if err != nil {
		tg.t.Fatal(err)
	}
	valid := make(map[string]bool)
	for _, links := range found {
		for _, link := range links {
			valid[filepath.Base(link)] = true
		}
	}
	for i := range clients {
		for n := range times {
			if link := fmt.Sprintf("root-%d-%d", i, n); !valid[link] {
				target, err := os.Readlink(filepath.Join(tg.top, link))
				tg.t.Errorf("root %s does not lead to a valid path: %q, %v", link, target, err)
			}
		}
	}
	tg.verify()
	tg.u.run("--verify", "--check-contents")
}
