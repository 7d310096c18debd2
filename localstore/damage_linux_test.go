package localstore

import (
	"testing"

	"golang.org/x/sys/unix"
)

// mountCases are media that cannot be written.
func mountCases() []damageCase {
	return []damageCase{
		{name: "read-only state", spoil: readOnlyMount(func(o *Options) string { return o.StateDir }), want: `"/.*/var/.*([Rr]ead-only|not writable)`, root: true},
		{name: "read-only store", spoil: readOnlyMount(func(o *Options) string { return string(o.StoreDir) }), want: `cannot remount ".*/store" writable: not in a private mount namespace`, root: true},
	}
}

func readOnlyMount(dir func(*Options) string) func(*testing.T, *Options) {
	return func(t *testing.T, o *Options) {
		d := dir(o)
		if err := unix.Mount(d, d, "", unix.MS_BIND, ""); err != nil {
			t.Skip("cannot mount: ", err)
		}
		t.Cleanup(func() { unix.Unmount(d, unix.MNT_DETACH) })
		if err := unix.Mount("", d, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
}
