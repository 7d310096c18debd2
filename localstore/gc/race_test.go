package gc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixdaemon/localstore"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// client speaks to the socket as other processes do.
type client struct {
	t    testing.TB
	conn net.Conn
}

func (f *fixture) connect() *client {
	f.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(f.opt.StateDir, socketName))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &client{f.t, conn}
}

func (c *client) send(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, line+"\n"); err != nil {
		c.t.Error(err)
	}
}

func (c *client) answered() bool {
	var b [1]byte
	_, err := io.ReadFull(c.conn, b[:])
	return err == nil && b[0] == '1'
}

func TestRootToldDuringCollection(t *testing.T) {
	for _, step := range []string{"roots", "planned"} {
		t.Run(step, func(t *testing.T) {
			f := newFixture(t, tower())
			log := new(messages)
			req := wholeStore(DeleteDead)
			req.Log = log
			c := f.collector(func(s string) error {
				if s == step {
					c := f.connect()
					c.send("garbage")
					c.send(f.dir.Print(testPath(4)))
					for range 2 {
						if !c.answered() {
							t.Error("not answered")
						}
					}
				}
				return nil
			})
			if _, err := c.Collect(context.Background(), req); err != nil {
				t.Fatal(err)
			}
			// What it needs is kept, too.
			f.check(1, 2, 4)
			if !slices.Contains(log.all(), "0 received garbage instead of a root from client") {
				t.Errorf("messages: %q", log.all())
			}
		})
	}
}

// TestForeignRootOutlivesCollection has another process tell us of a root without having written it down, as upstream's
// do: the next collection keeps it, too. What our own process tells of it has written down before.
func TestForeignRootOutlivesCollection(t *testing.T) {
	if socket := os.Getenv("GC_TEST_SOCKET"); socket != "" {
		tellRoot(socket, os.Getenv("GC_TEST_ROOT"))
	}
	f := newFixture(t, tower())
	c := f.collector(func(step string) error {
		if step != "planned" {
			return nil
		}
		cmd := exec.Command(os.Args[0], "-test.run", "^TestForeignRootOutlivesCollection$")
		cmd.Env = append(os.Environ(), "GC_TEST_SOCKET="+filepath.Join(f.opt.StateDir, socketName), "GC_TEST_ROOT="+f.dir.Print(testPath(4)))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		ours := f.connect()
		ours.send(f.dir.Print(testPath(5)))
		if !ours.answered() {
			return errors.New("not answered")
		}
		return nil
	})
	if _, err := c.Collect(context.Background(), wholeStore(DeleteDead)); err != nil {
		t.Fatal(err)
	}
	f.check(1, 2, 3, 4, 5)
	if _, err := f.collector(nil).Collect(context.Background(), wholeStore(DeleteDead)); err != nil {
		t.Fatal(err)
	}
	f.check(1, 2, 4)
}

// tellRoot is the other process.
func tellRoot(socket, root string) {
	conn, err := net.Dial("unix", socket)
	if err == nil {
		_, err = io.WriteString(conn, root+"\n")
	}
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, 1))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func TestRootToldWhileDeleted(t *testing.T) {
	f := newFixture(t, &shape{n: 1})
	p := testPath(0)
	answers := make(chan bool, 1)
	store := &meddler{Store: f.Store}
	c := New(Options{Store: store})
	deleted := false
	store.before = func([]storepath.Path) {
		cl := f.connect()
		// A root that is not being deleted is answered at once, also behind one connection.
		cl.send(f.dir.Print(testPath(8)))
		if !cl.answered() {
			t.Error("not answered")
		}
		cl.send(f.dir.Print(p))
		go func() { answers <- cl.answered() }()
	}
	store.delete = func(string) {
		select {
		case <-answers:
			t.Error("answered before the path was deleted")
		default:
		}
		deleted = true
	}
	if _, err := c.Collect(context.Background(), wholeStore(DeleteDead)); err != nil {
		t.Fatal(err)
	}
	// The answer, or an end of the connection upon which the client asks for the lock.
	<-answers
	if !deleted {
		t.Error("not deleted")
	}
	f.check()
}

func TestNewReferrerKeepsPath(t *testing.T) {
	f := newFixture(t, tower())
	ctx := context.Background()
	temp := f.NewTempRoots()
	defer temp.Close()
	once := false
	store := &meddler{Store: f.Store, before: func(paths []storepath.Path) {
		if once || !slices.Contains(paths, testPath(2)) {
			return
		}
		once = true
		// A client that holds on to 7 alone registers it with a reference to 2.
		f.content(f.dir.Print(testPath(7)), 7)
		info := &pathinfo.Info{Path: testPath(7), NarHash: nixhash.Of(nixhash.SHA256, ""), NarSize: 1, References: []storepath.Path{testPath(2)}}
		if err := f.Register(ctx, []*pathinfo.Info{info}); err != nil {
			t.Error(err)
		}
	}}
	if _, err := New(Options{Store: store}).Collect(ctx, wholeStore(DeleteDead)); err != nil {
		t.Fatal(err)
	}
	f.check(1, 2, 7)
}

func TestPathThatBecameValidIsKept(t *testing.T) {
	f := newFixture(t, tower())
	ctx := context.Background()
	f.content(f.dir.Print(testPath(7)), 7)
	c := f.collector(func(step string) error {
		if step == "claimed" {
			info := &pathinfo.Info{Path: testPath(7), NarHash: nixhash.Of(nixhash.SHA256, ""), NarSize: 1}
			return f.Register(ctx, []*pathinfo.Info{info})
		}
		return nil
	})
	if _, err := c.Collect(ctx, wholeStore(DeleteDead)); err != nil {
		t.Fatal(err)
	}
	f.check(7)
}

// TestConcurrentRoots has connections of this process make roots while everything else is collected.
func TestConcurrentRoots(t *testing.T) {
	const n = 1500
	r := rand.New(rand.NewPCG(3, 4))
	s := &shape{n: n, refs: map[int][]int{}}
	for i := 1; i < n; i++ {
		s.refs[i] = []int{r.IntN(i)}
	}
	f := newFixture(t, s)
	ctx := context.Background()
	var keep [4][]storepath.Path // what each got in time
	done := make(chan int)
	var temps [4]*localstore.TempRoots
	started := make(chan struct{})
	for k := range keep {
		temps[k] = f.NewTempRoots()
		defer temps[k].Close()
		go func() {
			<-started
			r := rand.New(rand.NewPCG(5, uint64(k)))
			for range 150 {
				p := testPath(r.IntN(n))
				if err := temps[k].Add(ctx, p); err != nil {
					t.Error(err)
				}
				if valid, err := f.IsValid(ctx, p); err != nil {
					t.Error(err)
				} else if valid {
					keep[k] = append(keep[k], p)
				}
			}
			done <- k
		}()
	}
	c := f.collector(func(step string) error {
		if step == "planned" {
			close(started)
		}
		return nil
	})
	if _, err := c.Collect(ctx, wholeStore(DeleteDead)); err != nil {
		t.Fatal(err)
	}
	for range keep {
		<-done
	}
	kept := 0
	for _, paths := range keep {
		valid, err := f.ValidPaths(ctx, paths)
		if err != nil {
			t.Fatal(err)
		}
		if len(valid) != len(paths) {
			t.Errorf("of %d that were found valid after becoming roots %d still are", len(paths), len(valid))
		}
		kept += len(valid)
	}
	t.Logf("%d roots in time", kept)
	f.verify()
}

func TestServerBounds(t *testing.T) {
	f := newFixture(t, tower())
	c := f.collector(func(step string) error {
		if step != "roots" {
			return nil
		}
		long := f.connect()
		io.WriteString(long.conn, strings.Repeat("x", maxLine+1))
		if long.answered() {
			t.Error("an endless line was answered")
		}
		var all []*client
		for range maxClients + 10 {
			all = append(all, f.connect())
			all[len(all)-1].send(f.dir.Print(testPath(5)))
			if !all[len(all)-1].answered() {
				t.Fatal("not answered")
			}
		}
		if all[0].answered() {
			t.Error("the oldest connection was not closed")
		}
		return nil
	})
	if _, err := c.Collect(context.Background(), wholeStore(DeleteDead)); err != nil {
		t.Fatal(err)
	}
	f.check(3, 5)
}

func TestServerAnswersEachLine(t *testing.T) {
	f := newFixture(t, tower())
	c := f.collector(func(step string) error {
		if step != "roots" {
			return nil
		}
		cl := f.connect()
		var lines strings.Builder
		for i := range 1000 {
			fmt.Fprintln(&lines, f.dir.Print(testPath(i)))
		}
		go io.WriteString(cl.conn, lines.String())
		answers := make([]byte, 1000)
		if _, err := io.ReadFull(bufio.NewReader(cl.conn), answers); err != nil || strings.Trim(string(answers), "1") != "" {
			t.Errorf("answers %q, %v", answers, err)
		}
		info, err := os.Stat(filepath.Join(f.opt.StateDir, socketName))
		if err != nil || info.Mode().Perm() != 0o666 {
			t.Errorf("socket: %v, %v", info, err)
		}
		return nil
	})
	if _, err := c.Collect(context.Background(), wholeStore(DeleteDead)); err != nil {
		t.Fatal(err)
	}
	f.check(0, 1, 2, 3, 4, 5)
}

// TestTryClaim: who must not wait is told so, and nothing else is.
func TestTryClaim(t *testing.T) {
	c := newClaims()
	if !c.tryClaim("early") {
		t.Error("nothing is planned, but a root has to wait")
	}
	c.planned(func(hashPart string) bool { return hashPart != "alive" })
	if c.begin("early") {
		t.Error("a root is deleted that was told early")
	}
	if !c.begin("going") || c.tryClaim("going") {
		t.Error("what is being deleted does not have to wait")
	}
	c.end("going")
	if !c.tryClaim("going") || c.begin("going") {
		t.Error("what was deleted, and is claimed, is deleted again")
	}
	if !c.tryClaim("alive") || len(c.keeping) != 2 {
		t.Errorf("%v is remembered", c.keeping)
	}
	c.close()
	if c.tryClaim("late") {
		t.Error("a collection took a root that was over")
	}
}

func TestClaimsForgetWhatDoesNotMatter(t *testing.T) {
	c := newClaims()
	c.planned(func(h string) bool { return h == "a" })
	for _, h := range []string{"a", "b"} {
		if !c.claim(h) {
			t.Error("refused")
		}
	}
	if c.begin("a") || !c.begin("b") || len(c.keeping) != 1 {
		t.Errorf("keeping %v", c.keeping)
	}
	c.close()
	if c.claim("b") {
		t.Error("answered after the end")
	}
}

// TestKilledAtEachStep ends a collection after each of its steps, as the death of the process would, and looks at what
// a new process finds.
func TestKilledAtEachStep(t *testing.T) {
	killed := errors.New("killed")
	for _, step := range []string{"locked", "roots", "planned", "claimed", "invalidated", "deleted", "links"} {
		t.Run(step, func(t *testing.T) {
			f := newFixture(t, tower())
			f.root("r", 2)
			c := f.collector(func(s string) error {
				if s == step {
					return killed
				}
				return nil
			})
			if _, err := c.Collect(context.Background(), wholeStore(DeleteDead)); !errors.Is(err, killed) {
				t.Fatalf("got %v", err)
			}
			f.reopen()
			f.verify()
			f.collect(wholeStore(DeleteDead))
			f.check(1, 2)
		})
	}
}

// TestTempRootReleasedDuringScan: a path becomes valid just after its permanent root was found to lead to nothing, and its
// temporary root is let go before the collector comes to look at those.
func TestTempRootReleasedDuringScan(t *testing.T) {
	f := newFixture(t, &shape{n: 2})
	p := testPath(0)
	link := filepath.Join(f.opt.StateDir, "gcroots", "late")
	if err := os.Symlink(f.dir.Print(p), link); err != nil {
		t.Fatal(err)
	}
	temp := f.Store.NewTempRoots()
	if err := temp.Add(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	store := &meddler{Store: f.Store}
	store.valid = func(valid []storepath.Path) []storepath.Path {
		if err := temp.Close(); err != nil {
			t.Error(err)
		}
		return slices.DeleteFunc(valid, func(q storepath.Path) bool { return p == q })
	}
	if _, err := New(Options{Store: store}).Collect(context.Background(), wholeStore(DeleteDead)); err != nil {
		t.Fatal(err)
	}
	f.check(0)
}
