package db

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// crashChildDir names the database directory in which this test binary, started again, plays the process that is killed.
const crashChildDir = "NIXDAEMON_TEST_CRASH_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashChildDir); dir != "" {
		fmt.Fprintln(os.Stderr, crashChild(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// crashChild registers paths from several callers and prints each when it is acknowledged, until it is killed.
func crashChild(dir string) error {
	db, err := Open(context.Background(), Options{Dir: dir, UseWAL: true, FsyncMetadata: true})
	if err != nil {
		return err
	}
	start := os.Getpid() * 1000000
	var mu sync.Mutex
	failed := make(chan error)
	for caller := range 8 {
		go func() {
			previous := ""
			for i := 0; ; i++ {
				row := PathRow{Path: storePath(start+caller*100000+i, "crash"), Hash: testHash}
				if previous != "" {
					row.References = []string{previous}
				}
				err := db.Write(context.Background(), func(tx *Tx) error { return tx.Register([]PathRow{row}, nil) })
				if err != nil {
					failed <- err
					return
				}
				previous = row.Path
				mu.Lock()
				fmt.Println(row.Path)
				mu.Unlock()
			}
		}()
	}
	return <-failed
}

func TestKillDuringGroupWrites(t *testing.T) {
	opts := testOptions(t)
	must(t, openTest(t, opts).Close())
	var acknowledged []string
	for round := range 4 {
		acknowledged = append(acknowledged, killAfter(t, opts.Dir, 50+100*round)...)
		db := openTest(t, opts)
		checkIntegrity(t, db)
		valid, err := db.ValidSubset(t.Context(), acknowledged)
		if err != nil || len(valid) != len(acknowledged) {
			t.Errorf("round %d: %d of %d acknowledged paths are valid, %v", round, len(valid), len(acknowledged), err)
		}
		must(t, db.Close())
	}
}

// killAfter returns what the child acknowledged before it was killed, which is when it had acknowledged n.
func killAfter(t *testing.T, dir string, n int) (acknowledged []string) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashChildDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		acknowledged = append(acknowledged, lines.Text())
		if len(acknowledged) == n {
			must(t, child.Process.Kill())
		}
	}
	must(t, lines.Err())
	if err := child.Wait(); err == nil || len(acknowledged) < n {
		t.Fatalf("child ended by itself after %d paths: %v", len(acknowledged), err)
	}
	// The last line may be cut short.
	if last := acknowledged[len(acknowledged)-1]; len(last) < len("/nix/store/")+32+len("-crash-") {
		acknowledged = acknowledged[:len(acknowledged)-1]
	}
	return acknowledged
}

// TestCreateAgainAfterCrash repeats the creation after each step that a crash may have left undone.
func TestCreateAgainAfterCrash(t *testing.T) {
	for _, missing := range []string{"schema", "db.sqlite-wal", "db.sqlite-shm", "reserved", "big-lock"} {
		opts := testOptions(t)
		must(t, openTest(t, opts).Close())
		must(t, os.Remove(filepath.Join(opts.Dir, missing)))
		db := openTest(t, opts)
		register(t, db, PathRow{Path: "/a", Hash: testHash})
		checkIntegrity(t, db)
	}
}
