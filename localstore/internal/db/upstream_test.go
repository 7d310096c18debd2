package db

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"zombiezen.com/go/sqlite"
)

// upstreams returns the folders with upstream's programs: NIXDAEMON_UPSTREAM is a list of them in the manner of PATH;
// without it the nix-store of PATH is taken.
func upstreams(t *testing.T) []string {
	t.Helper()
	if list := os.Getenv("NIXDAEMON_UPSTREAM"); list != "" {
		return filepath.SplitList(list)
	}
	program, err := exec.LookPath("nix-store")
	if err != nil {
		t.Skip("missing: upstream's nix-store in PATH, or NIXDAEMON_UPSTREAM naming the folders that have one")
	}
	return []string{filepath.Dir(program)}
}

// forEachUpstream runs f for each release of upstream that can be found.
func forEachUpstream(t *testing.T, f func(t *testing.T, nix *upstream)) {
	for _, bin := range upstreams(t) {
		out, err := exec.Command(filepath.Join(bin, "nix-store"), "--version").Output()
		if err != nil {
			t.Errorf("%s: %v", bin, err)
			continue
		}
		fields := strings.Fields(string(out))
		version := fields[len(fields)-1]
		t.Run(version, func(t *testing.T) { f(t, &upstream{t: t, bin: bin, version: version, root: t.TempDir()}) })
	}
}

// upstream is a store of its own under root, used by upstream's programs.
type upstream struct {
	t                  *testing.T
	bin, version, root string
	features           string
}

func (u *upstream) dbDir() string { return filepath.Join(u.root, "var/nix/db") }
func (u *upstream) store() string { return filepath.Join(u.root, "store") }

func (u *upstream) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(u.bin, args[0]), args[1:]...)
	cmd.Env = append(os.Environ(),
		"NIX_STORE_DIR="+u.store(), "NIX_STATE_DIR="+filepath.Join(u.root, "var/nix"),
		"NIX_LOG_DIR="+filepath.Join(u.root, "log"), "NIX_CONF_DIR="+filepath.Join(u.root, "etc"),
		"NIX_REMOTE=", "NIX_CONFIG=build-users-group =\nsubstituters =\nexperimental-features = "+u.features,
		"HOME="+u.root)
	return cmd
}

func (u *upstream) run(args ...string) string {
	u.t.Helper()
	cmd := u.command(args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		u.t.Fatalf("%s %v: %v\n%s", u.version, args, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func (u *upstream) options() Options {
	return Options{Dir: u.dbDir(), UseWAL: true, FsyncMetadata: true, ReservedSize: 8 << 20}
}

var (
	sqlComment = regexp.MustCompile(`--[^\n]*`)
	sqlSpace   = regexp.MustCompile(`\s+`)
)

// schemaOf returns what sqlite_master says, sorted, without comments and white space.
func schemaOf(t *testing.T, dir string) []string {
	t.Helper()
	c := openForeign(t, dir)
	defer c.close()
	var all []string
	s, _, err := c.sql.PrepareTransient("select type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql, '') from sqlite_master")
	must(t, err)
	defer s.Finalize()
	for {
		more, err := s.Step()
		must(t, err)
		if !more {
			break
		}
		text := sqlComment.ReplaceAllString(s.ColumnText(0), "")
		text = strings.NewReplacer(" ,", ",", "( ", "(", " )", ")").Replace(sqlSpace.ReplaceAllString(text, " "))
		all = append(all, text)
	}
	slices.Sort(all)
	return all
}

func TestUpstreamSameDirectory(t *testing.T) {
	forEachUpstream(t, func(t *testing.T, nix *upstream) {
		nix.run("nix-store", "--init")
		ours := testOptions(t)
		ours.ReservedSize = 8 << 20
		must(t, openTest(t, ours).Close())
		want, got := schemaOf(t, nix.dbDir()), schemaOf(t, ours.Dir)
		// Releases before 2.9 know no SchemaMigrations, those since 2.35 drop IndexReferrer. Neither minds ours.
		for _, name := range []string{"SchemaMigrations", "IndexReferrer"} {
			about := func(s string) bool { return strings.Contains(s, name) }
			if !slices.ContainsFunc(want, about) {
				got = slices.DeleteFunc(got, about)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("schema (-upstream +ours):\n%s", diff)
		}
		if diff := cmp.Diff(listFiles(t, nix.dbDir()), listFiles(t, ours.Dir)); diff != "" {
			t.Errorf("files (-upstream +ours):\n%s", diff)
		}
	})
}

func TestUpstreamSameCATables(t *testing.T) {
	forEachUpstream(t, func(t *testing.T, nix *upstream) {
		if strings.HasPrefix(nix.version, "2.3.") {
			t.Skip("missing: realisations in this release")
		}
		nix.features = "ca-derivations"
		nix.run("nix-store", "--init")
		opts := testOptions(t)
		opts.WantCA = true
		must(t, openTest(t, opts).Close())
		got := schemaOf(t, opts.Dir)
		for _, want := range schemaOf(t, nix.dbDir()) {
			if !slices.Contains(got, want) {
				t.Errorf("missing: %s", want)
			}
		}
		// Ours over theirs must change nothing but add the other generation, and theirs over ours nothing at all.
		over := nix.options()
		over.WantCA = true
		must(t, openTest(t, over).Close())
		after := schemaOf(t, nix.dbDir())
		nix.run("nix-store", "--init")
		if diff := cmp.Diff(after, schemaOf(t, nix.dbDir())); diff != "" {
			t.Errorf("upstream changed our schema (-before +after):\n%s", diff)
		}
	})
}

func listFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var all []string
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		size := info.Size()
		if strings.HasPrefix(e.Name(), "db.sqlite") {
			size = -1 // pages are laid out as each release of SQLite likes
		}
		all = append(all, fmt.Sprint(e.Name(), " ", info.Mode(), " ", size))
	}
	return all
}

// registration is the text that nix-store --register-validity reads for one path.
func registration(path string, refs ...string) string {
	text := path + "\n" + strings.TrimPrefix(testHash, "sha256:") + "\n5\n\n" + fmt.Sprintln(len(refs))
	for _, r := range refs {
		text += r + "\n"
	}
	return text
}

func TestUpstreamReadsOursAndWeReadTheirs(t *testing.T) {
	forEachUpstream(t, func(t *testing.T, nix *upstream) {
		db := openTest(t, nix.options())
		path := func(i int) string { return nix.store() + strings.TrimPrefix(storePath(i, "x"), "/nix/store") }
		a, b, drv := path(1), path(2), path(3)+".drv"
		err := db.Write(t.Context(), func(tx *Tx) error {
			return tx.Register([]PathRow{
				{Path: a, Hash: testHash, NarSize: 7, Deriver: drv, References: []string{a, b}},
				{Path: b, Hash: testHash, NarSize: 8},
				{Path: drv, Hash: testHash, NarSize: 9},
			}, map[string]map[string]string{drv: {"out": a}})
		})
		must(t, err)
		for _, test := range []struct{ query, of, want string }{
			{"--references", a, a + "\n" + b}, {"--referrers", b, a}, {"--deriver", a, drv}, {"--size", b, "8"},
			{"--hash", a, "sha256:" + nix.run("nix-hash", "--type", "sha256", "--to-base32", strings.TrimPrefix(testHash, "sha256:"))},
		} {
			got := strings.Fields(nix.run("nix-store", "--query", test.query, test.of))
			want := strings.Fields(test.want)
			if diff := cmp.Diff(want, got, ignoreOrder); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", test.query, test.of, diff)
			}
		}
		generation := db.Generation()
		file := filepath.Join(nix.root, "hello")
		must(t, os.WriteFile(file, []byte("hello"), 0o644))
		added := nix.run("nix-store", "--add", file)
		if db.Generation() == generation {
			t.Error("upstream's change was not noticed")
		}
		row, found, err := db.QueryPath(t.Context(), added)
		if err != nil || !found || !strings.HasPrefix(row.Hash, "sha256:") || len(row.Hash) != 71 || row.NarSize == 0 ||
			!strings.HasPrefix(row.CA, "fixed:r:sha256:") || row.Deriver != "" || row.Ultimate || row.Sigs != "" {
			t.Errorf("path added by upstream: %+v, %v, %v", row, found, err)
		}
	})
}

// TestUpstreamWritesMeanwhile has our callers and upstream's processes register paths at the same time.
func TestUpstreamWritesMeanwhile(t *testing.T) {
	forEachUpstream(t, func(t *testing.T, nix *upstream) {
		nix.run("nix-store", "--init")
		db := openTest(t, nix.options())
		path := func(i int) string { return nix.store() + strings.TrimPrefix(storePath(i, "x"), "/nix/store") }
		const processes, perProcess = 10, 20
		var ours []string
		stop := make(chan struct{})
		var wg sync.WaitGroup
		var mu sync.Mutex // guards ours
		for caller := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					p := path(100000*(caller+1) + i)
					register(t, db, PathRow{Path: p, Hash: testHash, NarSize: 1})
					mu.Lock()
					ours = append(ours, p)
					mu.Unlock()
					<-tick()
				}
			})
		}
		var theirs []string
		for i := range processes {
			text := ""
			for j := range perProcess {
				p := path(i*perProcess + j)
				theirs = append(theirs, p)
				text += registration(p)
				must(t, os.MkdirAll(p, 0o755))
			}
			cmd := nix.command("nix-store", "--register-validity", "--hash-given")
			cmd.Stdin = strings.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("register-validity: %v\n%s", err, out)
			}
		}
		close(stop)
		wg.Wait()
		all := append(theirs, ours...)
		valid, err := db.ValidSubset(t.Context(), all)
		if err != nil || len(valid) != len(all) {
			t.Errorf("%d of %d paths are valid, %v", len(valid), len(all), err)
		}
		checkIntegrity(t, db)
	})
}

func checkIntegrity(t *testing.T, db *DB) {
	t.Helper()
	var report []string
	err := db.read(t.Context(), func(c *conn) (err error) {
		for _, text := range []string{"integrity_check", "foreign_key_check"} {
			s, _, err := c.sql.PrepareTransient("pragma " + text)
			if err != nil {
				return err
			}
			defer s.Finalize()
			report = append(report, readAll(t, s)...)
		}
		return nil
	})
	if diff := cmp.Diff([]string{"ok"}, report); diff != "" || err != nil {
		t.Errorf("integrity: %v\n%s", err, diff)
	}
}

func readAll(t *testing.T, s *sqlite.Stmt) (all []string) {
	t.Helper()
	for {
		more, err := s.Step()
		must(t, err)
		if !more {
			return all
		}
		all = append(all, s.ColumnText(0))
	}
}
