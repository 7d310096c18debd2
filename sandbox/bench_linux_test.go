package sandbox_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"nixdaemon/sandbox"
	"nixdaemon/sandbox/sandboxtest"
)

func BenchmarkIsolated(b *testing.B) {
	l := newLauncher(b)
	for _, inputs := range []int{8, 800} {
		b.Run(strconv.Itoa(inputs)+" inputs", func(b *testing.B) { benchmarkStart(b, l, inputWorld(b, l, nil, inputs)) })
		b.Run(strconv.Itoa(inputs)+" inputs, assembled", func(b *testing.B) { benchmarkStart(b, l, assembledWorld(b, l, inputs)) })
		b.Run(strconv.Itoa(inputs)+" inputs, build user", func(b *testing.B) {
			benchmarkStart(b, l, inputWorld(b, l, sandboxtest.BuildUser(b), inputs))
		})
	}
}

// inputWorld has so many directories bound into it.
func inputWorld(b *testing.B, l *sandbox.Launcher, u *sandbox.User, inputs int) sandbox.Spec {
	spec := world(b, l, u, "true")
	source := b.TempDir()
	for i := range inputs {
		dir := source + "/" + strconv.Itoa(i)
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		spec.Isolation.Entries = append(spec.Isolation.Entries,
			sandbox.Entry{Kind: sandbox.EntryBind, Target: "/nix/store/input" + strconv.Itoa(i), Source: dir, ReadOnly: true})
	}
	return spec
}

// assembledWorld has them mounted once.
func assembledWorld(b *testing.B, l *sandbox.Launcher, inputs int) sandbox.Spec {
	spec := inputWorld(b, l, nil, inputs)
	entries := spec.Isolation.Entries
	made := len(entries) - inputs
	var binds []sandbox.Bind
	for _, e := range entries[made:] {
		binds = append(binds, sandbox.Bind{Name: filepath.Base(e.Target), Source: e.Source})
	}
	root := b.TempDir()
	a, err := l.Assemble(entries[0].Source, root, binds, nil, spec.Isolation.IDs)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.Close() })
	spec.Isolation.Entries, entries[0].Assembly = entries[:made], a
	return spec
}
