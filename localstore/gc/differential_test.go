package gc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/storepath"
)

// differentialCases is how many random cases a test compares: the number in NIXDAEMON_GC_CASES, or few.
func differentialCases(t *testing.T, few int) int {
	text := os.Getenv("NIXDAEMON_GC_CASES")
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("NIXDAEMON_GC_CASES: %v", err)
	}
	return n
}

// findReference finds the release whose behaviour is ours: others print and keep differently.
func findReference(t *testing.T) string {
	t.Helper()
	dir := findUpstream(t)
	out, err := exec.Command(filepath.Join(dir, "nix-store"), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), " 2.34.") {
		t.Skipf("set NIXDAEMON_UPSTREAM to the bin directory of release 2.34.8: there is %s", strings.TrimSpace(string(out)))
	}
	return dir
}

// twins are two copies of a store: ours works on the fixture, upstream on the other.
type twins struct {
	*fixture
	theirs      upstream
	top         string
	copies      []string // of the directories of the fixture: store, state
	keepOutputs bool
	keepDrvs    bool
}

// graphs puts many random graphs side by side into one store, each with roots and leftovers of its own: as many cases for
// one run of each collector. What is in one graph does not touch another.
func graphs(t *testing.T, r *rand.Rand, dir string, n int, junk bool) *twins {
	t.Helper()
	all := &shape{refs: map[int][]int{}, deriver: map[int]int{}, outputs: map[int][]int{}}
	var starts []int
	for range n {
		starts = append(starts, all.n)
		all.append(randomShape(r, 3*(1+r.IntN(7))))
	}
	f := newFixture(t, all)
	tw := &twins{fixture: f, top: filepath.Dir(string(f.dir)), keepOutputs: r.IntN(2) == 0, keepDrvs: r.IntN(2) == 0}
	tw.theirs = upstream{f, dir}
	var temps []int
	if err := os.Mkdir(tw.top+"/links", 0o755); err != nil {
		t.Fatal(err)
	}
	for i, start := range append(starts, all.n)[1:] {
		first := starts[i]
		for range r.IntN(3) {
			temps = append(temps, tw.randomRoot(r, first+r.IntN(start-first))...)
		}
		tw.litter(r, first+r.IntN(start-first), junk)
	}
	tw.copy()
	tw.holdTempRoots(temps)
	return tw
}

// append adds a graph behind the others.
func (s *shape) append(other *shape) {
	shift := func(list []int) (out []int) {
		for _, n := range list {
			out = append(out, n+s.n)
		}
		return out
	}
	for i := range other.n {
		s.refs[s.n+i] = shift(other.refs[i])
		if d, ok := other.deriver[i]; ok {
			s.deriver[s.n+i] = s.n + d
		}
		s.outputs[s.n+i] = shift(other.outputs[i])
	}
	s.n += other.n
}

// randomRoot makes a root of path i, or something like one. It gives those that are to be temporary.
func (tw *twins) randomRoot(r *rand.Rand, i int) (temps []int) {
	path := tw.dir.Print(testPath(i))
	roots, name := tw.opt.StateDir+"/gcroots", fmt.Sprintf("r%d-%d", i, r.IntN(1000))
	link := func(target, at string) {
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			tw.t.Fatal(err)
		}
		if err := os.Symlink(target, at); err != nil && !os.IsExist(err) {
			tw.t.Fatal(err)
		}
	}
	switch r.IntN(9) {
	case 0:
		link(path, roots+"/"+name)
	case 1:
		link(path+"/bin/program", roots+"/per/user/"+name)
	case 2:
		link(path, tw.top+"/links/"+name)
		link(tw.top+"/links/"+name, roots+"/auto/"+name)
	case 3: // stale
		link(tw.top+"/links/none-"+name, roots+"/auto/"+name)
	case 4:
		link("../../links/"+name, roots+"/"+name)
		link(path, tw.top+"/links/"+name)
	case 5:
		link(path, tw.opt.StateDir+"/profiles/"+name)
	case 6:
		if err := os.WriteFile(roots+"/"+testPath(i).Base(), nil, 0o600); err != nil {
			tw.t.Fatal(err)
		}
	case 7: // to what is not valid
		link(tw.dir.Print(testPath(i+1_000_000)), roots+"/"+name)
	case 8:
		return []int{i}
	}
	return nil
}

// litter leaves something of path i, or in its name, in the store. Without junk all of it has the name of a store path.
func (tw *twins) litter(r *rand.Rand, i int, junk bool) {
	base := testPath(i).Base()
	tw.t.Helper()
	at := func(name string) string { return filepath.Join(string(tw.dir), name) }
	var err error
	switch r.IntN(8) {
	case 0:
		tw.content(at(testPath(i+1_000_000).Base()), i)
	case 1:
		err = os.WriteFile(at(base+".lock"), nil, 0o600)
	case 2:
		err = os.MkdirAll(at(base+".chroot/root/tmp"), 0o755)
	case 3:
		err = os.Link(at(base), at(".links/"+base))
		if i%5 == 4 {
			err = nil // a directory
		}
	case 4:
		err = os.WriteFile(at(".links/"+base), []byte("unused"), 0o444)
	case 5:
		err = os.RemoveAll(at(base)) // a row without files
	case 6:
		if junk {
			err = os.WriteFile(at("junk-"+base), []byte("junk"), 0o600)
		}
	case 7:
		if junk {
			err = os.MkdirAll(at("tmp-1-"+base+"/x"), 0o700)
		}
	}
	if err != nil {
		tw.t.Fatal(err)
	}
}

// copy makes the second store, with what links there are between its files.
func (tw *twins) copy() {
	tw.t.Helper()
	if err := tw.Store.Close(); err != nil {
		tw.t.Fatal(err)
	}
	for _, dir := range []string{string(tw.dir), tw.opt.StateDir} {
		if out, err := exec.Command("cp", "-a", dir, dir+"2").CombinedOutput(); err != nil {
			tw.t.Fatalf("copy %s: %v\n%s", dir, err, out)
		}
		tw.copies = append(tw.copies, dir+"2")
	}
	tw.open()
}

// holdTempRoots writes files as a living process would have, one for each store.
func (tw *twins) holdTempRoots(paths []int) {
	tw.t.Helper()
	var text strings.Builder
	for _, i := range paths {
		text.WriteString(tw.dir.Print(testPath(i)) + "\x00")
	}
	for _, state := range []string{tw.opt.StateDir, tw.copies[1]} {
		file, err := pathlock.OpenLockFile(state+"/temproots/123456", true)
		if err != nil {
			tw.t.Fatal(err)
		}
		tw.t.Cleanup(func() { file.Close() })
		if ok, err := pathlock.TryFlock(file, pathlock.Exclusive); !ok || err != nil {
			tw.t.Fatal(ok, err)
		}
		if _, err := file.WriteString(text.String()); err != nil {
			tw.t.Fatal(err)
		}
	}
}

// upstream runs the reference on its copy, or on ours.
func (tw *twins) upstream(ours bool, args ...string) (stdout, stderr string, err error) {
	tw.t.Helper()
	store := fmt.Sprintf("local?store=%s&real=%s&state=%s&log=%s", tw.dir, tw.copies[0], tw.copies[1], tw.top+"/log2")
	if ours {
		store = fmt.Sprintf("local?store=%s&state=%s&log=%s", tw.dir, tw.opt.StateDir, tw.opt.LogDir)
	}
	cmd := tw.theirs.command(append([]string{
		"--store", store, "--option", "keep-outputs", fmt.Sprint(tw.keepOutputs), "--option", "keep-derivations", fmt.Sprint(tw.keepDrvs),
	}, args...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (tw *twins) must(ours bool, args ...string) string {
	tw.t.Helper()
	out, stderr, err := tw.upstream(ours, args...)
	if err != nil {
		tw.t.Fatalf("%v: %v\n%s", args, err, stderr)
	}
	return out
}

func (tw *twins) request(action Action) Request {
	req := wholeStore(action)
	req.KeepOutputs, req.KeepDerivations = tw.keepOutputs, tw.keepDrvs
	return req
}

// tree gives all names below a directory that matter here.
func (tw *twins) tree(dirs ...string) (all []string) {
	for _, dir := range dirs {
		filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			all = append(all, strings.TrimPrefix(path, dir))
			return err
		})
	}
	slices.Sort(all)
	return all
}

// compare demands that both stores have the same rows, files, links and roots. The rows are read by the reference.
func (tw *twins) compare() {
	tw.t.Helper()
	if diff := cmp.Diff(tw.must(false, "--dump-db"), tw.must(true, "--dump-db")); diff != "" {
		tw.t.Errorf("valid (-upstream +ours):\n%s", diff)
	}
	for i, dir := range []string{string(tw.dir), tw.opt.StateDir + "/gcroots"} {
		their := []string{tw.copies[0], tw.copies[1] + "/gcroots"}[i]
		if diff := cmp.Diff(tw.tree(their), tw.tree(dir)); diff != "" {
			tw.t.Errorf("left (-upstream +ours):\n%s", diff)
		}
	}
}

// existing gives those of a list that exist, sorted. Of what does not upstream lists what it happens to come across.
func (tw *twins) existing(list []string) (out []string) {
	for _, path := range list {
		if _, err := os.Lstat(path); err == nil {
			out = append(out, path)
		}
	}
	return sorted(out)
}

// TestSameAsUpstreamInManyCases compares whole collections. Upstream's listings also delete what has no name of a store
// path; where there is such junk they are not asked.
func TestSameAsUpstreamInManyCases(t *testing.T) {
	dir := findReference(t)
	const together = 50
	cases := differentialCases(t, 200)
	for batch := range (cases + together - 1) / together {
		t.Run(fmt.Sprint(batch), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(batch), 77))
			junk := batch%2 == 0
			tw := graphs(t, r, dir, together, junk)
			if !junk {
				tw.compareLists()
			}
			want := tw.must(false, "--gc")
			res := tw.collect(tw.request(DeleteDead))
			got := fmt.Sprintf("%d store paths deleted, %s freed\n", len(res.Paths), renderSize(int64(res.BytesFreed)))
			if want != got {
				t.Errorf("upstream: %sours: %s", want, got)
			}
			tw.compare()
		})
	}
}

func (tw *twins) compareLists() {
	tw.t.Helper()
	for action, flag := range map[Action]string{ReturnLive: "--print-live", ReturnDead: "--print-dead"} {
		if diff := cmp.Diff(tw.existing(strings.Fields(tw.must(false, "--gc", flag))), tw.existing(tw.collect(tw.request(action)).Paths)); diff != "" {
			tw.t.Errorf("%s (-upstream +ours):\n%s", flag, diff)
		}
	}
}

// TestSameSpecificDeletions deletes some paths of each of many graphs, and has the same go or fail.
func TestSameSpecificDeletions(t *testing.T) {
	dir := findReference(t)
	const together = 20
	cases := differentialCases(t, together)
	for batch := range (cases + together - 1) / together {
		t.Run(fmt.Sprint(batch), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(batch), 78))
			tw := graphs(t, r, dir, 3*together, false)
			valid, err := tw.AllValidPaths(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			deleted := 0
			for range together {
				req := tw.request(DeleteSpecific)
				req.WholeStore = false
				at := r.IntN(len(valid))
				// Neighbours are likely to be of one graph.
				for range 1 + r.IntN(3) {
					req.Paths = append(req.Paths, valid[min(at+r.IntN(6), len(valid)-1)])
				}
				if r.IntN(4) > 0 {
					req.Paths = tw.withReferrers(req.Paths)
				}
				if tw.specific(req) {
					deleted++
				}
			}
			t.Logf("%d of %d requests could be fulfilled", deleted, together)
			tw.compare()
		})
	}
}

// withReferrers adds all that refers to the paths, directly or not: without that they can rarely be deleted.
func (tw *twins) withReferrers(paths []storepath.Path) []storepath.Path {
	tw.t.Helper()
	for i := 0; i < len(paths); i++ {
		referrers, err := tw.Referrers(context.Background(), paths[i])
		if err != nil {
			tw.t.Fatal(err)
		}
		for _, p := range referrers {
			if !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	}
	return paths
}

// specific tells whether both deleted what they were to.
func (tw *twins) specific(req Request) bool {
	tw.t.Helper()
	args := []string{"--delete"}
	for _, p := range req.Paths {
		args = append(args, tw.dir.Print(p))
	}
	_, stderr, failed := tw.upstream(false, args...)
	_, err := tw.collector(nil).Collect(context.Background(), req)
	if (err == nil) != (failed == nil) || err != nil && !strings.Contains(stderr, err.Error()) {
		tw.t.Errorf("%v: upstream: %v, ours: %v\n%s", args, failed, err, stderr)
	}
	return err == nil
}

// TestSameLimits deletes some of a chain at a time: there is one order for that.
func TestSameLimits(t *testing.T) {
	dir := findReference(t)
	r := rand.New(rand.NewPCG(5, 79))
	f := newFixture(t, chain(300))
	tw := &twins{fixture: f, theirs: upstream{f, dir}, top: filepath.Dir(string(f.dir))}
	tw.copy()
	for range 12 {
		limit := uint64(r.IntN(4000))
		want := tw.must(false, "--gc", "--max-freed", fmt.Sprint(limit))
		req := tw.request(DeleteDead)
		req.MaxFreed = limit
		res := tw.collect(req)
		if got := fmt.Sprintf("%d store paths deleted, %s freed\n", len(res.Paths), renderSize(int64(res.BytesFreed))); got != want {
			t.Errorf("at most %d: upstream: %sours: %s", limit, want, got)
		}
		tw.compare()
	}
}
