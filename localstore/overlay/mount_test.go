package overlay

import (
	"strings"
	"testing"
)

const well = "overlay /s/store overlay rw,relatime,lowerdir=/l,upperdir=/u,workdir=/w,uuid=on 0 0\n"

func TestCheck(t *testing.T) {
	m := Mount{Dir: "/s/store", Lower: "/l", Upper: "/u"}
	for mounts, want := range map[string]bool{
		"":                              false,
		well:                            true,
		"tmpfs / tmpfs rw 0 0\n" + well: true,
		well + "tmpfs /s/store tmpfs rw,lowerdir=/l,upperdir=/u 0 0\n":  false,
		well + "overlay /s/store overlay rw,lowerdir=/l2,upperdir=/u\n": false,
		"overlay /s/store overlay rw,lowerdir=/x,upperdir=/u\n" + well:  true,
		strings.Replace(well, "/s/store", "/s/store2", 1):               false,
		strings.Replace(well, "=/l,", "=/l:/l2,", 1):                    false,
		strings.Replace(well, "=/u,", "=/u/u,", 1):                      false,
		strings.Replace(well, "lowerdir=", "lowerdir+=", 1):             true,
		strings.Replace(well, "overlay /", "none /", 1):                 true,
		strings.Replace(well, ",upperdir=/u", "", 1):                    false,
		"overlay\n": false,
	} {
		err := m.checkIn(strings.NewReader(mounts))
		if (err == nil) != want {
			t.Errorf("%q: %v", mounts, err)
		}
		if err != nil && err.Error() != `overlay filesystem "/s/store" mounted incorrectly` {
			t.Errorf("%q: %v", mounts, err)
		}
	}
	odd := Mount{Dir: "/a b", Lower: `/l,\`, Upper: "/u\n"}
	if err := odd.checkIn(strings.NewReader(`overlay /a\040b overlay lowerdir=/l\054\134,upperdir=/u\012 0 0`)); err != nil {
		t.Error(err)
	}
	if err := (Mount{Dir: "/s/store", Lower: "/l"}).checkIn(strings.NewReader(strings.Replace(well, "=/u", "=", 1))); err == nil {
		t.Error("an upper layer that is not known was found")
	}
	if err := m.checkIn(strings.NewReader(strings.Repeat("x", maxMountLine+1))); err == nil || strings.Contains(err.Error(), "incorrectly") {
		t.Error(err)
	}
	if err := m.Check(); err == nil {
		t.Error("nothing is mounted there")
	}
}

func FuzzUnescape(f *testing.F) {
	for _, text := range []string{"", `\040`, `a\`, `\04`, `\999`, `\134040`, `\777`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := unescape(text)
		if len(got) > len(text) || !strings.Contains(text, `\`) && got != text {
			t.Errorf("%q from %q", got, text)
		}
		if back := unescape(escape(text)); back != text {
			t.Errorf("%q came back as %q", text, back)
		}
	})
}

// escape is what the kernel does.
func escape(text string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`, ",", `\054`).Replace(text)
}
