package gc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"nixdaemon/localstore/roots"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// Each reason for which a dead path may stay is in the owner's log.
func TestAccount(t *testing.T) {
	ctx := context.Background()
	register := func(f *fixture, n int, refs ...storepath.Path) {
		info := &pathinfo.Info{Path: testPath(n), NarHash: nixhash.Of(nixhash.SHA256, ""), NarSize: 1, References: refs}
		if err := f.Register(ctx, []*pathinfo.Info{info}); err != nil {
			t.Error(err)
		}
	}
	for _, tt := range []struct {
		name, at string
		happens  func(*fixture)
		want     []string
	}{
		{"nothing", "", func(*fixture) {}, []string{"10 of 10 dead ones deleted"}},
		{"a root", "planned", func(f *fixture) {
			c := f.connect()
			c.send(f.dir.Print(testPath(4)))
			c.answered()
		}, []string{"5 of 10 dead ones deleted", "1 became roots meanwhile, the first is '", "4 are needed by such"}},
		{"a referrer", "claimed", func(f *fixture) {
			f.content(f.dir.Print(testPath(13)), 13)
			register(f, 13, testPath(2))
		}, []string{"7 of 10 dead ones deleted", "1 got a referrer meanwhile, the first is '", "2 are needed by such"}},
		{"registered", "claimed", func(f *fixture) { register(f, 11) }, []string{"10 of 11 dead ones deleted", "1 became valid meanwhile"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, chain(10))
			if tt.name == "registered" {
				f.content(f.dir.Print(testPath(11)), 11)
			}
			owner, once := new(messages), false
			c := New(Options{Store: f.Store, Log: owner, Step: func(step string) error {
				if step == tt.at && !once {
					once = true
					tt.happens(f)
				}
				return nil
			}})
			if _, err := c.Collect(ctx, wholeStore(DeleteDead)); err != nil {
				t.Fatal(err)
			}
			text := strings.Join(owner.all(), "\n")
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("no word of %q in:\n%s", want, text)
				}
			}
			if len(owner.all()) != len(tt.want) || strings.Contains(text, "no known reason") {
				t.Errorf("got:\n%s", text)
			}
		})
	}
}

// TestNothingDeadStays collects again and again in a store in which much goes on: what is left afterwards is alive for a
// reason that can be named. With NIXDAEMON_GC_PATHS set the store has so many paths.
func TestNothingDeadStays(t *testing.T) {
	n, rounds := 1000, differentialCases(t, 6)
	if text := os.Getenv("NIXDAEMON_GC_PATHS"); text != "" {
		if _, err := fmt.Sscan(text, &n); err != nil {
			t.Fatal(err)
		}
	}
	for round := range rounds {
		f := newFixture(t, chain(n))
		r := rand.New(rand.NewPCG(uint64(round), 9))
		// What a program reads by chance, whoever it belongs to, is alive as long as the program has it open.
		open, rooted := r.IntN(n/2), r.IntN(n/2)
		file, err := os.Open(f.dir.Print(testPath(open)))
		if err != nil {
			t.Fatal(err)
		}
		f.root("some", rooted)
		log, owner := new(messages), new(messages)
		temp := f.NewTempRoots()
		last := max(open, rooted)
		c := New(Options{Store: f.Store, Log: owner, Step: func(step string) error {
			if step == "invalidated" && r.IntN(4) == 0 {
				p := r.IntN(n)
				if err := temp.Add(context.Background(), testPath(p)); err != nil {
					return err
				}
				if valid, err := f.IsValid(context.Background(), testPath(p)); err != nil || valid {
					last = max(last, p)
					return err
				}
			}
			return nil
		}})
		req := wholeStore(DeleteDead)
		req.Log = log
		res, err := c.Collect(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		temp.Close()
		if len(res.Paths) != n-last-1 {
			t.Errorf("round %d: %d paths deleted, not the %d after %d; log:\n%s", round, len(res.Paths), n-last-1, last, strings.Join(owner.all(), "\n"))
		}
		if text := fmt.Sprintf("6 got additional root '%s'", f.dir.Print(testPath(open))); !slices.Contains(log.all(), text) {
			t.Errorf("round %d: the open file is not mentioned", round)
		}
		if text := strings.Join(owner.all(), "\n"); strings.Contains(text, "no known reason") {
			t.Errorf("round %d: %s", round, text)
		}
		f.verify()
	}
}

// A program that happens to read a file of the store while the roots are looked for keeps it, and all that it needs.
func TestOpenFileIsARoot(t *testing.T) {
	f := newFixture(t, chain(10))
	file, err := os.Open(f.dir.Print(testPath(6)))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	found, err := roots.Runtime(context.Background(), roots.Options{Dir: f.dir, StateDir: f.opt.StateDir, Valid: f.ValidPaths})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := found[testPath(6)]; !ok || len(found) != 1 {
		t.Errorf("found %v", found)
	}
	f.collect(wholeStore(DeleteDead))
	f.check(0, 1, 2, 3, 4, 5, 6)
}
