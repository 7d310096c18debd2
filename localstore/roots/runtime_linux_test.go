package roots

import (
	"fmt"
	"testing"
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
