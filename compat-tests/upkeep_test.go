package compat

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestUpkeepAsReference has both daemons verify, repair, optimise, collect and delete in stores that are damaged in
// random ways, the same for both: they must say the same, and leave the same rows and files, with the same modes, times
// and links between them. NIXDAEMON_UPKEEP_CASES says how many stores, each of some 60 objects of which about half are damaged.
func TestUpkeepAsReference(t *testing.T) {
	c := requireClients(t, referenceVersion)[0]
	cases := 8
	if text := os.Getenv("NIXDAEMON_UPKEEP_CASES"); text != "" {
		var err error
		if cases, err = strconv.Atoi(text); err != nil {
			t.Fatalf("NIXDAEMON_UPKEEP_CASES: %v", err)
		}
	}
	for seed := range cases {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			u := newUpkeep(t, c, uint64(seed))
			want := u.run(t, c.program("nix-daemon"))
			got := u.run(t, shared.daemon)
			for i, step := range want {
				if slices.ContainsFunc(step.Said.Stderr, endsReference) {
					t.Logf("the reference ends at step %d: %v", i+1, step.Said)
					break
				}
				if diff := cmp.Diff(step, got[i]); diff != "" {
					t.Fatalf("step %d (- reference, + daemon under test):\n%s\nThe reference said:\n%s\nThe daemon under test said:\n%s\nDone to the store:\n%s", i+1, diff,
						strings.Join(step.Said.Stderr, "\n"), strings.Join(got[i].Said.Stderr, "\n"), strings.Join(u.done, "\n"))
				}
			}
		})
	}
}

// endsReference tells of an error where upstream gives up what ours goes on with: a path that is gone, needed only by
// others that are gone but cannot be forgotten; a path that is gone among those to be optimised.
func endsReference(line string) bool {
	return strings.Contains(line, "FOREIGN KEY constraint failed") || strings.HasPrefix(line, "error: getting status of")
}

// upkeep is a damaged store, and what is to be done about it.
type upkeep struct {
	scratch
	client  client
	r       *rand.Rand
	objects []string            // store paths
	refs    map[string][]string // of them to others of them
	gone    map[string]bool     // those that were removed; true for without what refers to them
	done    []string            // what befell them
	steps   [][]string
	odd     bool // there are rows that name no store paths
}

// upkeepStep is a command and what came of it.
type upkeepStep struct {
	Said        step
	Rows, Files []string
}

func newUpkeep(t *testing.T, c client, seed uint64) *upkeep {
	t.Helper()
	u := &upkeep{scratch: newScratch(t), client: c, r: rand.New(rand.NewPCG(seed, 4)), refs: make(map[string][]string), gone: make(map[string]bool)}
	u.configureClient(t, c)
	more := "build-hook =\nrequire-sigs = false\nexperimental-features = ca-derivations\nsubstituters = file://" + u.path("cache") + "\n"
	u.configure(t, more)
	u.fill(t)
	if u.r.IntN(2) == 0 {
		u.direct(t, "", "nix-store", "--optimise")
	}
	if u.plan(t); u.does("--add") {
		u.configure(t, more+"auto-optimise-store = true\n")
	}
	u.spoil(t)
	for _, dir := range []string{"store", "var"} {
		if err := os.Rename(u.path(dir), u.path(dir+".damaged")); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

// direct has the reference work on the store, with the daemon's settings.
func (u *upkeep) direct(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(u.client.bin, name), args...)
	cmd.Env = append(u.clientEnv(u.client), "NIX_REMOTE=", "NIX_CONF_DIR="+u.path("etc"))
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// fill makes objects that refer to each other, built ones among them, gives some a root and most a copy in a cache.
func (u *upkeep) fill(t *testing.T) {
	t.Helper()
	const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"
	var registration strings.Builder
	for i := range 50 {
		hash := make([]byte, 32)
		for k := range hash {
			hash[k] = alphabet[u.r.IntN(32)]
		}
		path := u.path("store", fmt.Sprintf("%s-object-%d", hash, i))
		u.object(t, path)
		var refs []string
		for range u.r.IntN(3) {
			if i > 0 {
				// Those nearby, for chains.
				refs = append(refs, u.objects[max(0, i-1-u.r.IntN(6))])
			}
		}
		if u.r.IntN(4) == 0 {
			refs = append(refs, path)
		}
		slices.Sort(refs)
		refs = slices.Compact(refs)
		fmt.Fprintf(&registration, "%s\n\n%d\n", path, len(refs))
		for _, ref := range refs {
			fmt.Fprintln(&registration, ref)
		}
		u.objects = append(u.objects, path)
		u.refs[path] = refs
	}
	u.direct(t, registration.String(), "nix-store", "--register-validity")
	u.direct(t, "", "nix", append([]string{"copy", "--extra-experimental-features", "nix-command", "--no-check-sigs", "--to", "file://" + u.path("cache")}, u.objects...)...)
	for _, path := range u.objects {
		if u.r.IntN(3) == 0 { // nobody has a copy
			hash, _, _ := strings.Cut(filepath.Base(path), "-")
			if err := os.Remove(u.path("cache", hash+".narinfo")); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exprs []string
	for i := range 4 {
		exprs = append(exprs, shell(fmt.Sprint("built-", i), fmt.Sprintf("mkdir -p $out/d; echo %d > $out/d/number; echo common > $out/common; ln -s d $out/l; echo said", u.r.IntN(3))))
	}
	built := strings.Fields(u.direct(t, "", "nix-build", "--no-out-link", "--option", "experimental-features", "", "-E", "["+"("+strings.Join(exprs, ") (")+")]"))
	u.objects = append(u.objects, built...)
	u.insertRealisations(t)
	roots := u.path("var/nix/gcroots")
	for i, path := range u.objects {
		if u.r.IntN(3) > 0 {
			if err := os.Symlink(path, filepath.Join(roots, fmt.Sprint("root-", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// object makes a file, a link or a tree. There are few different contents, so that many are equal.
func (u *upkeep) object(t *testing.T, path string) {
	t.Helper()
	var err error
	switch u.r.IntN(8) {
	case 0, 1:
		err = os.WriteFile(path, u.contents(), u.mode())
	case 2:
		err = os.Symlink("target-"+fmt.Sprint(u.r.IntN(3)), path)
	default:
		err = os.Mkdir(path, 0o755)
		for i := range u.r.IntN(5) {
			if err != nil {
				break
			}
			name := filepath.Join(path, fmt.Sprint("entry-", i))
			switch u.r.IntN(5) {
			case 0:
				err = os.Symlink("target-"+fmt.Sprint(u.r.IntN(3)), name)
			case 1:
				if err = os.Mkdir(name, 0o755); err == nil {
					err = os.WriteFile(name+"/below", u.contents(), u.mode())
				}
			default:
				err = os.WriteFile(name, u.contents(), u.mode())
			}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (u *upkeep) mode() fs.FileMode {
	if u.r.IntN(4) == 0 {
		return 0o755
	}
	return 0o644
}

func (u *upkeep) contents() []byte {
	size := []int{0, 1, 20, 20, 5000, 5000, 100_000}[u.r.IntN(7)]
	return []byte(strings.Repeat(string(rune('a'+u.r.IntN(3))), size))
}

func (u *upkeep) change(t *testing.T, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", u.path("var/nix/db/db.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (u *upkeep) insertRealisations(t *testing.T) {
	t.Helper()
	for i := range 10 {
		u.change(t, `insert into Realisations (drvPath, outputName, outputPath, signatures)
			select ?, 'out', id, '' from ValidPaths where path = ?`, fmt.Sprintf("sha256:%064x", i), u.objects[u.r.IntN(len(u.objects))])
	}
}

// spoil damages about half of the objects, some links, and leaves litter.
func (u *upkeep) spoil(t *testing.T) {
	t.Helper()
	for _, path := range u.objects {
		if _, gone := u.gone[path]; !gone && u.r.IntN(2) == 0 {
			u.did(t, path, u.spoilObject(t, path))
		}
	}
	links, err := os.ReadDir(u.path("store/.links"))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		path := u.path("store/.links", link.Name())
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		// For those with more names see plan.
		if u.r.IntN(3) == 0 && info.Sys().(*syscall.Stat_t).Nlink <= 2 {
			u.did(t, path, u.spoilLink(path))
		}
	}
	if u.odd {
		for _, path := range []string{"/elsewhere/" + filepath.Base(u.objects[0]), "no path", u.path("store", strings.Repeat("1", 32)+"-x/sub"), u.path("store/x"), ""} {
			u.change(t, "insert into ValidPaths (path, hash, registrationTime) values (?, 'sha256:"+strings.Repeat("1", 64)+"', 1)", path)
		}
	}
	for i := range u.r.IntN(6) {
		path := u.path("store", fmt.Sprintf("%032d-litter", i))
		u.did(t, path, u.litter(path, i))
	}
	if u.optimises() {
		u.equalTimes(t)
	}
}

// equalTimes gives all files the time that those in a store have. Which of several equal ones gives the others its own
// hangs on the order of paths.
func (u *upkeep) equalTimes(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(u.path("store"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		then := []unix.Timespec{{Sec: 1}, {Sec: 1}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, then, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (u *upkeep) did(t *testing.T, path, what string) {
	t.Helper()
	u.done = append(u.done, strings.TrimPrefix(path, u.root+"/")+": "+what)
}

// somewhere is the object or something in it.
func (u *upkeep) somewhere(path string, want func(fs.DirEntry) bool) (found string) {
	var all []string
	filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && want(d) {
			all = append(all, path)
		}
		return nil
	})
	if len(all) == 0 {
		return ""
	}
	return all[u.r.IntN(len(all))]
}

func isFile(d fs.DirEntry) bool { return d.Type().IsRegular() }
func isDir(d fs.DirEntry) bool  { return d.IsDir() }
func isAny(fs.DirEntry) bool    { return true }

// spoilObject gives what it did.
func (u *upkeep) spoilObject(t *testing.T, path string) string {
	t.Helper()
	file, dir := u.somewhere(path, isFile), u.somewhere(path, isDir)
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	row := func(set string, args ...any) string {
		t.Helper()
		u.change(t, "update ValidPaths set "+set+" where path = ?", append(args, path)...)
		return fmt.Sprint("row: ", set, args)
	}
	for {
		kind := u.r.IntN(22)
		if kind >= 9 && kind <= 11 && u.repairs() {
			continue // Upstream goes on believing what type it had, and what it has repaired is bad.
		}
		if kind == 8 && u.optimises() {
			continue // It gets its mode back only if something in it is replaced, which hangs on the order of paths.
		}
		switch kind {
		case 0, 1:
			if what := u.remove(t, path, u.r.IntN(2) == 0); what != "" {
				return what
			}
		case 2:
			if what := u.remove(t, path, true); what != "" {
				return what
			}
		case 3:
			if file != "" {
				must(os.WriteFile(file, []byte("altered"), 0))
				return "altered " + file
			}
		case 4:
			if file != "" {
				info, err := os.Lstat(file)
				must(err, os.WriteFile(file, []byte(strings.Repeat("~", int(info.Size()))), 0))
				return "altered, same size " + file
			}
		case 5:
			if dir != "" {
				must(os.WriteFile(dir+"/extra", u.contents(), 0o444))
				return "extra file in " + dir
			}
		case 6:
			if some := u.somewhere(path, isAny); some != path {
				must(os.RemoveAll(some))
				return "removed " + some
			}
		case 7:
			if file != "" {
				modes := []fs.FileMode{0o444, 0o555, 0o644, 0o755, 0o400, 0o100, 0}
				if u.optimises() {
					modes = modes[:4] // the others would be those of equal files if they are met first
				}
				must(os.Chmod(file, modes[u.r.IntN(len(modes))]))
				return "mode of " + file
			}
		case 8:
			if dir != "" {
				must(os.Chmod(dir, []fs.FileMode{0o755, 0o700, 0o511, 0o1777}[u.r.IntN(4)]))
				return "mode of " + dir
			}
		case 9:
			must(os.RemoveAll(path), os.Symlink("elsewhere", path))
			return "now a link"
		case 10:
			must(os.RemoveAll(path), os.WriteFile(path, u.contents(), 0o444))
			return "now a file"
		case 11:
			must(os.RemoveAll(path), os.Mkdir(path, 0o555))
			return "now a directory"
		case 12:
			if dir != "" {
				must(syscall.Mkfifo(dir+"/pipe", 0o444))
				return "pipe in " + dir
			}
		case 13:
			if file != "" {
				must(os.Truncate(file, int64(u.r.IntN(6000))))
				return "size of " + file
			}
		case 14:
			// Without the size that belongs to it: upstream would keep that even if it is wrong.
			return row("narSize = null, hash = ?", "sha256:"+strings.Repeat("0", 64))
		case 15:
			return row("narSize = ?", []any{nil, 0, 12345}[u.r.IntN(3)])
		case 16:
			return row("hash = ?", "sha256:"+strings.Repeat("1", 64))
		case 17:
			return row("hash = ?", []string{"sha512:" + strings.Repeat("0", 128), "md5:" + strings.Repeat("3", 32), "sha1:" + strings.Repeat("4", 40)}[u.r.IntN(3)])
		case 18:
			return row("deriver = ?", u.path("store/00000000000000000000000000000000-gone.drv"))
		case 19:
			if file != "" {
				link := u.somewhere(u.path("store/.links"), isFile)
				if link != "" {
					must(os.Remove(file), os.Link(link, file))
					return file + " replaced by " + link
				}
			}
		case 20:
			if dir != "" {
				deep := dir + strings.Repeat("/d", 62+u.r.IntN(4))
				must(os.MkdirAll(deep, 0o755))
				return "deep " + deep
			}
		case 21:
			if dir != "" {
				must(os.WriteFile(dir+"/odd \xff\x01name", nil, 0o444))
				return "odd name in " + dir
			}
		}
	}
}

// remove removes an object, alone or with all that refers to it, and tells what it removed. Those whose removal upstream
// would give up at are left, see endsReference.
func (u *upkeep) remove(t *testing.T, path string, alone bool) string {
	t.Helper()
	all := []string{path}
	if alone {
		if !u.repairs() {
			return "" // would not be forgotten, and upstream's optimiser gives up at it
		}
		for _, other := range u.objects {
			_, below := u.gone[other]
			if slices.Contains(u.refs[path], other) && below || slices.Contains(u.refs[other], path) && u.gone[other] {
				return ""
			}
		}
	}
	for i := 0; i < len(all) && !alone; i++ {
		for _, other := range u.objects {
			if slices.Contains(u.refs[other], all[i]) && !slices.Contains(all, other) {
				all = append(all, other)
			}
		}
	}
	for _, p := range all {
		u.gone[p] = alone
		if err := os.RemoveAll(p); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprint("removed ", all)
}

// repairs tells whether a step is a repair.
func (u *upkeep) repairs() bool { return u.does("--repair") }

func (u *upkeep) optimises() bool { return u.does("--optimise") }

func (u *upkeep) does(flag string) bool {
	return slices.ContainsFunc(u.steps, func(s []string) bool { return slices.Contains(s, flag) })
}

func (u *upkeep) spoilLink(path string) string {
	switch u.r.IntN(5) {
	case 0:
		os.Remove(path)
		return "removed"
	case 1:
		os.Remove(path)
		os.WriteFile(path, u.contents(), u.mode()&^0o222)
		return "other contents"
	case 2:
		os.Rename(path, filepath.Dir(path)+"/"+strings.Repeat("0", 52))
		return "other name"
	case 3:
		os.Remove(path)
		os.Symlink("nowhere", path)
		return "a link"
	default:
		os.WriteFile(filepath.Dir(path)+"/no-hash", []byte("x"), 0o444)
		return "a foreign name"
	}
}

func (u *upkeep) litter(path string, i int) string {
	switch u.r.IntN(6) {
	case 0:
		os.WriteFile(path, []byte("x"), 0o444)
	case 1:
		os.Mkdir(path, 0o755)
		os.WriteFile(path+"/x", nil, 0o600)
	case 2:
		path = u.path("store", fmt.Sprint(".tmp-link-1-", i))
		os.WriteFile(path, nil, 0o444)
	case 3:
		os.Mkdir(u.path("store", fmt.Sprint("tmp-1-", i)), 0o700)
	case 4:
		os.WriteFile(path+".lock", []byte("d"), 0o600)
	case 5:
		os.WriteFile(u.path("store/junk"), []byte("junk"), 0o666)
	}
	return "litter"
}

// plan chooses what is done. It begins with a look at everything, most often.
func (u *upkeep) plan(t *testing.T) {
	t.Helper()
	pick := func() string { return u.objects[u.r.IntN(len(u.objects))] }
	all := [][]string{
		{"nix-store", "--verify"},
		{"nix-store", "--verify", "--check-contents"},
		{"nix-store", "--verify", "--check-contents"},
		{"nix-store", "--gc"},
		{"nix-store", "--delete", pick(), pick()},
		{"nix-store", "--delete", pick()},
		{"nix-store", "--verify-path", pick(), pick(), pick()},
	}
	switch u.r.IntN(4) {
	case 3: // Both link what is added to what equals it, damaged or not.
		for i := range 6 {
			path := u.path("home", fmt.Sprint("added-", i))
			u.object(t, path)
			u.steps = append(u.steps, []string{"nix-store", "--add", path})
		}
	case 0: // Verification would refuse odd rows, upstream's as well.
		u.odd = true
		all = all[3:]
	case 1: // Not both: of files that have lost their link to a repair upstream's optimiser joins one at a time.
		all = append(all, []string{"nix-store", "--verify", "--repair"}, []string{"nix-store", "--verify", "--check-contents", "--repair"},
			[]string{"nix-store", "--verify", "--check-contents", "--repair"})
	case 2:
		u.steps = [][]string{{"nix-store", "--verify"}} // forgets what is gone
		all = append(all, []string{"nix-store", "--optimise"}, []string{"nix-store", "--optimise"}, []string{"nix-store", "--optimise"})
	}
	for range max(2, 5-len(u.steps)) {
		u.steps = append(u.steps, all[u.r.IntN(len(all))])
	}
}

// systemErrors begin with a capital in the C library alone.
var systemErrors = []string{"No such file or directory", "Not a directory", "Is a directory"}

// run has a daemon do it.
func (u *upkeep) run(t *testing.T, p program) (steps []upkeepStep) {
	t.Helper()
	for _, dir := range []string{"store", "var"} {
		removeTree(t, u.path(dir))
		if out, err := exec.Command("cp", "-a", u.path(dir+".damaged"), u.path(dir)).CombinedOutput(); err != nil {
			t.Fatalf("copy: %v\n%s", err, out)
		}
	}
	removeTree(t, u.path("home/.cache")) // what is known of the cache
	d := startDaemon(t, u.scratch, p, daemonOptions{})
	for _, command := range u.steps {
		steps = append(steps, u.step(t, command))
	}
	mustStop(t, d)
	return steps
}

func (u *upkeep) step(t *testing.T, command []string) upkeepStep {
	t.Helper()
	cmd := exec.Command(filepath.Join(u.client.bin, command[0]), command[1:]...)
	cmd.Env = u.clientEnv(u.client)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ended := err.(*exec.ExitError); err != nil && !ended {
		t.Fatal(err)
	}
	var tr transcript
	said := strings.ReplaceAll(stderr.String(), "'//", "'/") // where it tells of depth
	for _, text := range systemErrors {
		said = strings.ReplaceAll(said, text, strings.ToLower(text))
	}
	tr.add(compareSorted, strings.Join(command, " "), cmd.ProcessState.ExitCode(), stdout.String(), said)
	return upkeepStep{tr.steps[0], u.upkeepRows(t), u.files(t)}
}

func (u *upkeep) upkeepRows(t *testing.T) []string {
	t.Helper()
	rows := u.rows(t)
	db, err := sql.Open("sqlite", u.path("var/nix/db/db.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found, err := db.Query(`select 'realisation ' || r.drvPath || ' = ' || ifnull(p.path, 'none') from Realisations r left join ValidPaths p on p.id = r.outputPath order by r.drvPath`)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	for found.Next() {
		var line string
		if err := found.Scan(&line); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, line)
	}
	return append(rows, fmt.Sprint(found.Err()))
}

// files lists all that is in the store, with what it has in common with others.
func (u *upkeep) files(t *testing.T) (lines []string) {
	t.Helper()
	first := make(map[uint64]string)
	err := filepath.WalkDir(u.path("store"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, u.path("store"))
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%q %v", name, info.Mode())
		if name != "" && name != "/.links" {
			when := "now"
			if info.ModTime().Before(time.Unix(1_000_000, 0)) {
				when = fmt.Sprint(info.ModTime().Unix())
			}
			line += " time " + when
		}
		if !d.IsDir() {
			same, ok := first[st.Ino]
			if !ok {
				same, first[st.Ino] = name, name
			}
			line += fmt.Sprintf(" %d names, same as %q", st.Nlink, same)
		}
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d bytes, %.8x", len(data), sha256.Sum256(data))
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " to " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}
