package sandbox

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSumUsages(t *testing.T) {
	one := func(pid, parent, group, session int) sample {
		return sample{pid, parent, group, session, Usage{CPU: time.Second, Memory: 10}}
	}
	samples := []sample{
		one(1, 0, 1, 1), one(50, 1, 50, 50),
		one(100, 50, 100, 100), one(101, 100, 100, 100), one(102, 101, 102, 102), // a tree
		one(103, 1, 100, 100),                            // an orphan of the same session
		one(104, 103, 104, 90),                           // and its child
		one(200, 50, 200, 200),                           // another builder
		one(300, 301, 300, 300), one(301, 300, 301, 301), // no kernel would say so
	}
	got := sumUsages([]int{100, 200, 999}, samples)
	want := map[int]Usage{100: {CPU: 5 * time.Second, Memory: 50, Processes: 5}, 200: {CPU: time.Second, Memory: 10, Processes: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
