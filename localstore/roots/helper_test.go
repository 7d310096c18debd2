package roots

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// answer has a helper say something to everybody.
func (f *fixture) answer(text string) {
	f.t.Helper()
	dir, err := os.MkdirTemp("", "roots")
	f.must(err)
	f.o.HelperSocket = dir + "/socket"
	l, err := net.Listen("unix", f.o.HelperSocket)
	f.must(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, text)
			conn.Close()
		}
	}()
	f.t.Cleanup(func() {
		l.Close()
		<-done
		os.RemoveAll(dir)
	})
}

// What a helper says is asked for instead of looking at processes, and who uses it stays its secret.
func TestHelper(t *testing.T) {
	f := newFixture(t)
	f.mkdir("proc/12")
	f.link(f.print(1), "proc/12/exe")
	f.answer(f.print(2) + "\x00" + f.print(3) + "\x00" + f.print(2) + "\x00" + f.print(200) + "\x00")
	f.compare(Runtime, Censored+" -> p2", Censored+" -> p3")
	f.answer("")
	f.compare(Runtime)
}

// A helper that is not there, dies, or says what cannot be understood ends the search: its roots are not known.
func TestHelperFails(t *testing.T) {
	f := newFixture(t)
	for name, text := range map[string]string{
		"cut off":   f.print(2) + "\x00" + f.print(3),
		"no path":   f.print(2) + "\x00/nix/elsewhere\x00",
		"empty":     "\x00" + f.print(2) + "\x00",
		"no end":    strings.Repeat("x", maxHelperLine+1),
		"no helper": "",
	} {
		f.answer(text)
		if name == "no helper" {
			f.o.HelperSocket += "-none"
		}
		if got, err := Runtime(t.Context(), f.o); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestHelperThatHangs(t *testing.T) {
	f := newFixture(t)
	dir, err := os.MkdirTemp("", "roots")
	f.must(err)
	defer os.RemoveAll(dir)
	f.o.HelperSocket = dir + "/socket"
	l, err := net.Listen("unix", f.o.HelperSocket)
	f.must(err)
	defer l.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		cancel(gone)
		io.Copy(io.Discard, conn)
		conn.Close()
	}()
	if _, err := Runtime(ctx, f.o); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

func FuzzHelper(f *testing.F) {
	o := Options{Dir: "/nix/store"}
	for _, text := range []string{"", "\x00", o.Dir.Print(path(1)) + "\x00", o.Dir.Print(path(1)), "x\x00\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		found, err := o.readHelper(strings.NewReader(text))
		if err == nil && len(found) > strings.Count(text, "\x00") {
			t.Errorf("%d roots in %q", len(found), text)
		}
	})
}
