package plan

import (
	"strconv"
	"testing"
)

// BenchmarkSteps plans a build with many inputs.
func BenchmarkSteps(b *testing.B) {
	in := base()
	for i := range 800 {
		path := "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-input-" + strconv.Itoa(i)
		in.Entries = append(in.Entries, Entry{Kind: BindDir, Target: path, Source: path, ReadOnly: true})
	}
	b.ReportAllocs()
	for b.Loop() {
		Steps(in)
	}
}
