package remote

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// holder is another process that holds locks, taken by flock(2) as upstream takes them.
type holder struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
}

func hold(t *testing.T, files ...string) *holder {
	t.Helper()
	flock, err := exec.LookPath("flock")
	if err != nil {
		t.Skip("no flock program, whose locks are those of another process: ", err)
	}
	script := "echo held; read x"
	for _, f := range slices.Backward(files) {
		script = "exec 2>&1; " + flock + " -n '" + f + "' sh -c \"" + strings.ReplaceAll(strings.ReplaceAll(script, `\`, `\\`), `"`, `\"`) + `"`
	}
	h := &holder{t: t, cmd: exec.Command("sh", "-c", script)}
	h.in, err = h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
	t.Cleanup(h.release)
	return h
}

func (h *holder) release() {
	h.in.Close()
	h.cmd.Wait()
}

// TestLoadForeign shows that slots taken by other processes count, by the names that upstream gives their files.
func TestLoadForeign(t *testing.T) {
	l := load{t.TempDir()}
	m := &Machine{URI: "ssh://nix@host?a=/b", MaxJobs: 3}
	name := func(slot string) string { return filepath.Join(l.dir, "ssh:__nix@host?a=_b-"+slot) }
	h := hold(t, name("0"), name("2"))
	slot, taken, err := l.find(m)
	if err != nil || slot == nil || taken != 2 || slot.Name() != name("1") {
		t.Fatalf("slot %v, %d taken, %v", slot, taken, err)
	}
	if again, taken, err := l.find(m); again != nil || taken != 3 || err != nil {
		t.Errorf("slot %v, %d taken, %v", again, taken, err)
	}
	if err := touch(slot); err != nil {
		t.Error(err)
	}
	if err := exec.Command("flock", "-n", name("1"), "true").Run(); err == nil {
		t.Error("others do not see that the slot is taken")
	}
	slot.Close()
	h.release()
	slot, taken, err = l.find(m)
	if err != nil || slot == nil || taken != 0 || slot.Name() != name("0") {
		t.Errorf("slot %v, %d taken, %v", slot, taken, err)
	}
	slot.Close()
}

func TestLoadLocks(t *testing.T) {
	l := load{filepath.Join(t.TempDir(), "current-load")}
	main, err := l.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if f, err := l.lock(ctx); err == nil {
		f.Close()
		t.Error("the lock was taken twice")
	}
	main.Close()
	m := &Machine{URI: "ssh://h/x"}
	up, late, err := l.upload(t.Context(), m)
	if err != nil || late || filepath.Base(up.Name()) != "ssh:__h_x.upload-lock" {
		t.Fatalf("%v, %v, %v", up, late, err)
	}
	if _, _, err := l.upload(ctx, m); err == nil {
		t.Error("the lock was taken twice")
	}
	up.Close()
	// printf %s URI | openssl md5 -binary | base64
	long := &Machine{URI: "ssh://" + strings.Repeat("x", 300)}
	up, _, err = l.upload(t.Context(), long)
	if err != nil {
		t.Fatal(err)
	}
	up.Close()
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Contains(names, "cVaXA3525EgT3CCeVOBJ6g==.upload-lock") {
		t.Errorf("files %q", names)
	}
}
