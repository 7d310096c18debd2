package localstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// collectedLog keeps the messages that clients would see by default.
type collectedLog struct {
	activity.Discard
	mu    sync.Mutex
	texts []string
}

func (l *collectedLog) Message(level activity.Level, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if level <= activity.Info {
		l.texts = append(l.texts, text)
	}
}

// damage changes a file that is valid.
func damage(t *testing.T, path string) {
	t.Helper()
	os.Chmod(path, 0o644)
	if err := os.WriteFile(path, []byte("damaged"), 0o444); err != nil {
		t.Fatal(err)
	}
}

func TestVerify(t *testing.T) {
	s := open(t, nil)
	fine := addText(t, s, "fine", "fine")
	gone := addText(t, s, "gone", "gone")
	goneToo := addText(t, s, "gone-too", "gone", gone.Path)
	needed := addText(t, s, "needed", "needed")
	user := addText(t, s, "user", "user", needed.Path)
	changed := addText(t, s, "changed", "changed")
	for _, p := range []storepath.Path{gone.Path, goneToo.Path, needed.Path} {
		os.Remove(s.RealPath(p))
	}
	damage(t, s.RealPath(changed.Path))
	var log collectedLog
	bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true, Log: &log})
	if !bad || err != nil {
		t.Error(bad, err)
	}
	damagedHash, _, err := s.hashTree(ctx, s.current.Load().root, changed.Path.Base())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"reading the Nix store...",
		"checking path existence...",
		fmt.Sprintf("path '%s' disappeared, removing from database...", s.Dir().Print(gone.Path)),
		fmt.Sprintf("path '%s' disappeared, removing from database...", s.Dir().Print(goneToo.Path)),
		fmt.Sprintf("path '%s' disappeared, but it still has valid referrers!", s.Dir().Print(needed.Path)),
		"checking link hashes...",
		"checking store hashes...",
		fmt.Sprintf("path '%s' was modified! expected hash '%s', got '%s'", s.Dir().Print(changed.Path), changed.NarHash, damagedHash),
	} {
		if !slices.Contains(log.texts, want) {
			t.Errorf("said %q, not %q", log.texts, want)
		}
	}
	valid, err := s.ValidPaths(ctx, []storepath.Path{fine.Path, gone.Path, goneToo.Path, needed.Path, user.Path, changed.Path})
	if err != nil || !slices.Equal(valid, []storepath.Path{fine.Path, needed.Path, user.Path, changed.Path}) {
		t.Error(valid, err)
	}
	repaired := s.repairing(t, map[storepath.Path]string{needed.Path: "needed", changed.Path: "changed"})
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true, Repair: true, RepairPath: repaired}); bad || err != nil {
		t.Error(bad, err)
	}
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
		t.Error("repaired, but", bad, err)
	}
}

// repairing adds texts once more.
func (s *Store) repairing(t *testing.T, texts map[storepath.Path]string) func(context.Context, storepath.Path) error {
	return func(ctx context.Context, p storepath.Path) error {
		spec := DumpSpec{Name: p.Name(), Method: storepath.MethodText, Algo: nixhash.SHA256, Repair: true}
		info, err := s.AddDump(ctx, spec, strings.NewReader(texts[p]), AddOptions{})
		if err == nil && info.Path != p {
			t.Errorf("repaired %s as %s", p, info.Path)
		}
		return err
	}
}

func TestVerifyReportsFailedRepair(t *testing.T) {
	s := open(t, nil)
	changed := addText(t, s, "changed", "changed")
	damage(t, s.RealPath(changed.Path))
	var log collectedLog
	needed := addText(t, s, "needed", "needed")
	addText(t, s, "user", "user", needed.Path)
	os.Remove(s.RealPath(needed.Path))
	fail := func(_ context.Context, p storepath.Path) error {
		return fmt.Errorf("cannot repair path '%s'\nat all", p.Name())
	}
	bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true, Repair: true, RepairPath: fail, Log: &log})
	if !bad || err != nil {
		t.Error(bad, err)
	}
	for _, want := range []string{
		"error: cannot repair path 'changed'\n       at all", "warning: cannot repair path 'needed'\n       at all",
	} {
		if !slices.Contains(log.texts, want) {
			t.Errorf("said %q, not %q", log.texts, want)
		}
	}
}

// TestVerifyRepairsWhatMissingOnesNeed: one that is gone, with a referrer that is gone, too, and cannot be forgotten.
func TestVerifyRepairsWhatMissingOnesNeed(t *testing.T) {
	s := open(t, nil)
	low := addText(t, s, "low", "low")
	middle := addText(t, s, "middle", "middle", low.Path)
	addText(t, s, "high", "high", middle.Path)
	for _, p := range []storepath.Path{low.Path, middle.Path} {
		os.Remove(s.RealPath(p))
	}
	var log collectedLog
	if bad, err := s.Verify(ctx, VerifyOptions{Log: &log}); !bad || err != nil {
		t.Error(bad, err)
	}
	for _, p := range []storepath.Path{low.Path, middle.Path} {
		want := fmt.Sprintf("path '%s' disappeared, but it still has valid referrers!", s.Dir().Print(p))
		if !slices.Contains(log.texts, want) {
			t.Errorf("said %q, not %q", log.texts, want)
		}
	}
	if slices.ContainsFunc(log.texts, func(text string) bool { return strings.Contains(text, "removing") }) {
		t.Errorf("said %q", log.texts)
	}
	again := func(_ context.Context, p storepath.Path) error {
		return os.WriteFile(s.RealPath(p), []byte(p.Name()), 0o444)
	}
	if bad, err := s.Verify(ctx, VerifyOptions{Repair: true, RepairPath: again}); bad || err != nil {
		t.Error(bad, err)
	}
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
		t.Error("repaired, but", bad, err)
	}
}

// TestVerifyOtherHashes: a row's hash says how the path is hashed.
func TestVerifyOtherHashes(t *testing.T) {
	s := open(t, nil)
	h := s.acquire()
	defer h.release()
	for _, algo := range []nixhash.Algo{nixhash.MD5, nixhash.SHA1, nixhash.SHA512} {
		for _, right := range []bool{true, false} {
			info := addText(t, s, fmt.Sprintf("text-%v-%t", algo, right), "text")
			sum := algo.New()
			if right {
				if err := s.Dump(ctx, info.Path, sum); err != nil {
					t.Fatal(err)
				}
			}
			hash := nixhash.FromSum(algo, sum).Format(nixhash.Base16, true)
			h.cache.begin(info.Path)
			err := h.db.Write(ctx, func(tx *db.Tx) error { return tx.SetHash(s.Dir().Print(info.Path), hash, info.NarSize) })
			h.cache.end(info.Path, false)
			if err != nil {
				t.Fatal(err)
			}
			var log collectedLog
			bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true, Log: &log})
			if bad == right || err != nil {
				t.Errorf("%v, right %t: %t, %v, %q", algo, right, bad, err, log.texts)
			}
			if _, err := s.Invalidate(ctx, info.Path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestVerifyLinks(t *testing.T) {
	s := open(t, nil)
	path := filepath.Join(s.RealDir(), linksName, "0000000000000000000000000000000000000000000000000000")
	os.WriteFile(path, []byte("x"), 0o444)
	bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true})
	if !bad || err != nil {
		t.Error(bad, err)
	}
	var log collectedLog
	bad, err = s.Verify(ctx, VerifyOptions{CheckContents: true, Repair: true, Log: &log})
	if bad || err != nil || !slices.Contains(log.texts, fmt.Sprintf("removed link \"%s\"", path)) {
		t.Error(bad, err, log.texts)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the link is still there")
	}
}

// TestVerifyFillsInWhatOldReleasesLeftOut: a size, and a hash of zeros.
func TestVerifyFillsInWhatOldReleasesLeftOut(t *testing.T) {
	s := open(t, nil)
	info := addText(t, s, "old", "old")
	h := s.acquire()
	h.cache.begin(info.Path)
	err := h.db.Write(ctx, func(tx *db.Tx) error {
		return tx.SetHash(s.Dir().Print(info.Path), "sha256:"+strings.Repeat("0", 64), 0)
	})
	h.cache.end(info.Path, false)
	h.release()
	if err != nil {
		t.Fatal(err)
	}
	var log collectedLog
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true, Log: &log}); bad || err != nil {
		t.Error(bad, err)
	}
	path := s.Dir().Print(info.Path)
	for _, want := range []string{
		fmt.Sprintf("fixing missing hash on '%s'", path), fmt.Sprintf("updating size field on '%s' to %d", path, info.NarSize),
	} {
		if !slices.Contains(log.texts, want) {
			t.Errorf("said %q, not %q", log.texts, want)
		}
	}
	checkPath(t, s, info)
}

func TestVerifyIsInterrupted(t *testing.T) {
	s := open(t, nil)
	addText(t, s, "a", "a")
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Verify(cancelled, VerifyOptions{CheckContents: true}); err == nil {
		t.Error("went on")
	}
}

func TestOptimiseAll(t *testing.T) {
	s := open(t, nil)
	var infos []storepath.Path
	for i := range 3 {
		infos = append(infos, addText(t, s, fmt.Sprint("same-", i), "same contents").Path)
	}
	var mu sync.Mutex
	var last [2]uint64
	stats, err := s.OptimiseAll(ctx, OptimiseProgress{Paths: func(done, all uint64) {
		mu.Lock()
		defer mu.Unlock()
		last = [2]uint64{max(last[0], done), all}
	}})
	if err != nil || stats.FilesLinked != 2 || stats.BytesFreed != 2*13 {
		t.Error(stats, err)
	}
	if last != [2]uint64{3, 3} {
		t.Error(last)
	}
	for _, p := range infos {
		st, err := os.Stat(s.RealPath(p))
		if err != nil || st.Mode() != 0o444 || st.ModTime().Unix() != 1 {
			t.Error(st.Mode(), st.ModTime(), err)
		}
	}
	spec := DumpSpec{Name: "same-4", Method: storepath.MethodText, Algo: nixhash.SHA256}
	info, err := s.AddDump(ctx, spec, strings.NewReader("same contents"), AddOptions{Optimise: true})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := os.Stat(s.RealPath(info.Path))
	b, _ := os.Stat(s.RealPath(infos[0]))
	if !os.SameFile(a, b) {
		t.Error("was not linked as it was added")
	}
	if files := tempRootFiles(t, s); len(files) != 0 {
		t.Errorf("left %v", files)
	}
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
		t.Error(bad, err)
	}
}
