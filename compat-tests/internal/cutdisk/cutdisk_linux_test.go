package cutdisk

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const ownNamespace = "CUTDISK_TEST_NAMESPACE"

func TestMain(m *testing.M) {
	ServeIfAsked()
	os.Exit(m.Run())
}

// TestCut writes two files, syncs after the first, and cuts.
func TestCut(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip("no disk whose power can be cut: ", err)
	}
	if os.Getenv(ownNamespace) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCut$", "-test.v=false")
		cmd.Env = append(os.Environ(), ownNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	disk, err := New(dir, 32<<20, "")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string) int {
		f, err := os.Create(filepath.Join(disk.Dir(), name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(name); err != nil {
			t.Fatal(err)
		}
		if err := unix.Syncfs(int(f.Fd())); err != nil {
			t.Fatal(err)
		}
		return disk.Position()
	}
	start := disk.Position()
	first := write("first")
	second := write("second")
	recording, err := disk.Stop()
	if err != nil {
		t.Fatal(err)
	}
	defer recording.Close()
	if !slices.ContainsFunc(recording.Events[start:first], func(e Event) bool { return e.Flush() }) {
		t.Error("nothing was flushed by a sync")
	}
	for _, cut := range []struct {
		at   int
		loss Loss
		want []string
	}{
		{start, AllLost, nil},
		{first, AllLost, []string{"first"}},
		{second, SomeLost, []string{"first", "second"}},
	} {
		got := filesAfter(t, recording, cut.at, cut.loss, dir)
		for _, name := range []string{"first", "second"} {
			wanted := len(cut.want) > 1 || len(cut.want) == 1 && name == "first"
			if (got[name] == name) != wanted {
				t.Errorf("cut at %d with %v: %s is %q", cut.at, cut.loss, name, got[name])
			}
		}
	}
	if err := recording.Cut(0, AllLost, nil, filepath.Join(dir, "cut")); err == nil {
		t.Error("went back in time")
	}
}

func filesAfter(t *testing.T, r *Recording, at int, loss Loss, dir string) map[string]string {
	image, mnt := filepath.Join(dir, "cut"), filepath.Join(dir, "mnt")
	if err := r.Cut(at, loss, rand.New(rand.NewPCG(1, uint64(at))), image); err != nil {
		t.Fatal(err)
	}
	unmount, err := Mount(image, mnt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unmount(); err != nil {
			t.Error(err)
		}
	}()
	got := make(map[string]string)
	for _, name := range []string{"first", "second"} {
		data, err := os.ReadFile(filepath.Join(mnt, name))
		if err == nil {
			got[name] = string(data)
		}
	}
	return got
}
