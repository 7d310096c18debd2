package sandbox

import (
	"os"
	"testing"
	"time"
)

func TestUsages(t *testing.T) {
	for start := time.Now(); time.Since(start) < 50*time.Millisecond; {
		_ = start
	}
	u, ok := Usages([]int{os.Getpid()})[os.Getpid()]
	if !ok || u.CPU <= 0 || u.Memory < 1<<20 || u.Processes < 1 {
		t.Errorf("we take %+v, %v", u, ok)
	}
	if u := Usages(nil); u != nil {
		t.Errorf("nobody takes %v", u)
	}
}

func TestParseSample(t *testing.T) {
	s, err := parseSample(7, []byte("7 (a) b) S 1 2 3 0 -1 0 0 0 0 0 100 20 3 1 20 0 1 0 500 4096 5 0 0\n"))
	want := sample{7, 1, 2, 3, Usage{CPU: 1240 * time.Millisecond, Memory: 5 * uint64(os.Getpagesize())}}
	if err != nil || s != want {
		t.Errorf("got %+v, %v, want %+v", s, err, want)
	}
	for _, bad := range []string{"", "7 (x) S 1 2", "7 (x) S 1 2 3 0 -1 0 0 0 0 0 x 20 3 1 20 0 1 0 500 4096 5"} {
		if s, err := parseSample(7, []byte(bad)); err == nil {
			t.Errorf("%q is %+v", bad, s)
		}
	}
}

func FuzzParseSample(f *testing.F) {
	f.Add([]byte("7 (a) b) S 1 2 3 0 -1 0 0 0 0 0 100 20 3 1 20 0 1 0 500 4096 5 0 0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSample(7, b); err == nil && s.usage.CPU < 0 {
			t.Errorf("%q takes %v", b, s.usage)
		}
	})
}
