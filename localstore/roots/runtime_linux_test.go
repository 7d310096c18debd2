package roots

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/storepath"
)

// TestProcess reads a made-up process, with the lines and texts that real ones seldom have.
func TestProcess(t *testing.T) {
	f := newFixture(t)
	f.mkdir("proc/12/fd")
	f.mkdir("proc/13")
	f.mkdir("proc/self")
	f.mkdir("proc/14/fd") // a thread of the kernel's
	f.link("/", "proc/14/cwd")
	f.file("proc/14/maps", "")
	f.link(f.print(1)+"/bin/x", "proc/12/exe")
	f.link(f.print(2), "proc/12/cwd")
	f.link("/nix/storeroom", "proc/12/fd/0")
	f.link(f.print(3), "proc/12/fd/7")
	f.link(f.print(200), "proc/12/fd/8")
	f.file("proc/12/maps", ""+
		"7f00-7f01 r-xp 00000000 08:01 123    "+f.print(4)+"/lib/x.so\n"+
		"7f01-7f02 r-xp 00000000 08:01 123    "+f.print(5)+"/lib/y.so (deleted)\n"+
		"7f02-7f03 rw-p 00000000 00:00 0 \n"+
		"7f03-7f04 r-xp 00000000 08:01 123    /mnt"+f.print(6)+"\n"+
		"7f03-7f04 r-xp 00000000 08:01 123    "+f.print(4)+"/lib/x.so\n"+
		"7f04-7f05 r-xp 00000000 08:01 123    "+f.print(7))
	f.file("proc/12/environ", "A="+f.print(8)+":/mnt"+f.print(9)+"\x00B=/nix/store/\x00C=/nix/store/-x\x00D="+f.print(10))
	f.file("proc/sys/kernel/modprobe", f.print(11)+"/bin/modprobe\n")
	f.file("proc/sys/kernel/poweroff_cmd", "/sbin/poweroff\n")
	f.link(f.print(20), "proc/13/exe")
	f.link(f.print(21), "proc/self/exe")
	f.compare(Runtime,
		"proc/12/cwd -> p2",
		"proc/12/environ -> p10",
		"proc/12/environ -> p8",
		"proc/12/environ -> p9",
		"proc/12/exe -> p1",
		"proc/12/fd/7 -> p3",
		"proc/12/maps -> p4",
		"proc/12/maps -> p7",
		"proc/13/exe -> p20",
		"proc/sys/kernel/modprobe -> p11",
	)
	f.said()
}

// TestLongFiles has names on both sides of where reads end, and lines that are longer than a read.
func TestLongFiles(t *testing.T) {
	f := newFixture(t)
	f.o.Valid = func(_ context.Context, paths []storepath.Path) ([]storepath.Path, error) { return paths, nil }
	f.mkdir("proc/12/fd")
	f.link("/bin/x", "proc/12/exe")
	var maps, environ strings.Builder
	var want []string
	for i := range 3000 {
		fmt.Fprintf(&maps, "7f00-7f01 r-xp 00000000 08:01 123    %s/lib/%s\n", f.print(i), strings.Repeat("x", i%97))
		fmt.Fprintf(&environ, "V%d=%s%s:%s\x00", i, strings.Repeat("y", i%89), f.print(3000+i), f.print(6000+i))
		want = append(want, fmt.Sprintf("proc/12/maps -> p%d", i), fmt.Sprintf("proc/12/environ -> p%d", 3000+i), fmt.Sprintf("proc/12/environ -> p%d", 6000+i))
	}
	fmt.Fprintf(&maps, "7f00-7f01 r-xp 00000000 08:01 123    %s/%s\n", f.print(9001), strings.Repeat("long/", 3*readSize/5))
	fmt.Fprintf(&environ, "LONG=%s%s", strings.Repeat("z", 3*readSize), f.print(9002))
	f.file("proc/12/maps", maps.String())
	f.file("proc/12/environ", environ.String())
	f.compare(Runtime, append(want, "proc/12/maps -> p9001", "proc/12/environ -> p9002")...)
}

// TestHugeMaps has a process on this machine whose names of mappings take more than the kernel lets anybody read at
// once of its own settings, as any user's may.
func TestHugeMaps(t *testing.T) {
	const mappings = 24_000 // the kernel allows a process 65,530
	page := os.Getpagesize()
	file, err := os.Create(t.TempDir() + "/" + strings.Repeat("x", 250))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(int64(mappings * page)); err != nil {
		t.Fatal(err)
	}
	area, err := unix.Mmap(int(file.Fd()), 0, mappings*page, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(area)
	for at := 0; at < len(area); at += 2 * page {
		if err := unix.Mprotect(area[at:at+page], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile("/proc/self/maps"); err != nil || len(text) < 6<<20 {
		t.Fatalf("the names of our mappings take %d bytes, %v; want more than 6 MiB", len(text), err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // whoever reads ours reads the kernel's
	f := newFixture(t)
	f.o.ProcDir = "/proc"
	if _, err := f.o.runtime(t.Context()); err != nil {
		t.Errorf("find roots: %v", err)
	}
}

// TestManyProcesses has more processes than are scanned at a time, and all are found.
func TestManyProcesses(t *testing.T) {
	f := newFixture(t)
	var want []string
	for i := range 90 {
		f.mkdir(fmt.Sprintf("proc/%d/fd", 100+i))
		f.link(f.print(i), fmt.Sprintf("proc/%d/exe", 100+i))
		f.link(f.print(i), fmt.Sprintf("proc/%d/fd/3", 100+i))
		want = append(want, fmt.Sprintf("proc/%d/exe -> p%d", 100+i, i), fmt.Sprintf("proc/%d/fd/3 -> p%d", 100+i, i))
	}
	f.compare(Runtime, want...)
}

func TestNoProcessFileSystem(t *testing.T) {
	f := newFixture(t)
	f.compare(Runtime)
}
