package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

type statusError struct{ status uint64 }

func (e statusError) Error() string      { return "builds failed" }
func (e statusError) ExitStatus() uint64 { return e.status }

type tracedError struct{ error }

func (tracedError) Traces() []string { return []string{"while doing '1'", "while doing '2'"} }

func TestWireError(t *testing.T) {
	remote := &protocol.Error{Message: "theirs", Level: activity.Warn, Traces: []string{"a"}}
	for _, c := range []struct {
		err     error
		message string
		traces  int
		status  uint64
	}{
		{errors.New("plain"), "plain", 0, 1},
		{&localstore.NotValidError{Path: "/nix/store/x"}, "path '" + magenta + "/nix/store/x" + normal + "' is not valid", 0, 1},
		{errors.New(`path "/foo" is not in the Nix store`), "path " + magenta + `"/foo"` + normal + " is not in the Nix store", 0, 1},
		{errors.New("input doesn't look like 'x'"), "input doesn't look like '" + magenta + "x" + normal + "'", 0, 1},
		{errors.New("'a' 'b'"), "'" + magenta + "a" + normal + "' '" + magenta + "b" + normal + "'", 0, 1},
		{errors.New("marked " + red + "'already'" + normal), "marked " + red + "'already'" + normal, 0, 1},
		{refuseRepair, "repairing is not allowed because you are not in 'trusted-users'", 0, 1},
		{errUnknownOp(48), "invalid operation " + magenta + "48" + normal, 0, 1},
		{fmt.Errorf("build: %w", context.Canceled), textInterrupted, 0, 1},
		{context.DeadlineExceeded, textInterrupted, 0, 1},
		{fmt.Errorf("read: %w", io.ErrUnexpectedEOF), textEnd, 0, 1},
		{statusError{102}, "builds failed", 0, 102},
		{tracedError{errors.New("x")}, "x", 2, 1},
		{&derivation.TraceError{Trace: "while", Err: tracedError{errors.New("x")}}, "x", 3, 1},
		{fmt.Errorf("here: %w", remote), "theirs", 1, 0},
	} {
		e := wireError(c.err)
		if e.Message != c.message || len(e.Traces) != c.traces || e.Status != c.status {
			t.Errorf("%v: got %q, traces %q, status %d", c.err, e.Message, e.Traces, e.Status)
		}
	}
}

func TestWholeText(t *testing.T) {
	const label = red + "error:" + normal
	for _, c := range []struct {
		e    protocol.Error
		want string
	}{
		{protocol.Error{Message: "x"}, label + " x"},
		{protocol.Error{Message: "two\n\n  lines\n"}, label + " two\n\n         lines"},
		{protocol.Error{Message: "x", Traces: []string{"while"}}, label + "\n       … while\n\n       " + label + " x"},
	} {
		if got := wholeText(&c.e); got != c.want {
			t.Errorf("got\n%q, want\n%q", got, c.want)
		}
	}
	many := protocol.Error{Message: "x", Traces: []string{"t1", "t2", "t3", "t4", "t5"}}
	if got := wholeText(&many); strings.Contains(got, "t5") || !strings.Contains(got, "t4") || !strings.Contains(got, "(stack trace truncated;") {
		t.Errorf("%q", got)
	}
}

func TestRenderSize(t *testing.T) {
	for bytes, want := range map[uint64]string{0: "0.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 1<<64 - 1: "16.0 EiB"} {
		if got := renderSize(bytes); got != want {
			t.Errorf("%d: got %s, want %s", bytes, got, want)
		}
	}
}

// TestOldErrors: clients before 1.26 get the text as it would be printed, and
// an exit status.
func TestOldErrors(t *testing.T) {
	w := newWorld(t)
	w.builder.do = func(context.Context, *session.Session) error { return statusError{104} }
	for _, v := range []uint8{18, 25, 26} {
		p := w.dial(true, minor(v))
		p.send(protocol.OpBuildPaths, func(to *protocol.Writer) { buildIn(derivation.BuildNormal)(w, to) })
		want, status := "error: builds failed", uint64(104)
		if v >= 26 {
			want, status = "builds failed", 1
		}
		if e := p.mustFail(want); e.Status != status {
			t.Error(v, e.Status)
		}
		p.inStep()
	}
}

// TestUnknownRequests end the connection.
func TestUnknownRequests(t *testing.T) {
	w := newWorld(t)
	for _, op := range []protocol.Op{0, 2, 15, 17, 48, 49, 50, 1000, 1001, 1<<32 - 1} {
		p := w.dial(true, protocol.ClientVersion())
		p.send(op, nil)
		p.mustEnd(2, fmt.Sprintf("invalid operation %d", uint64(op)))
	}
	p := w.dial(true, protocol.ClientVersion())
	p.send(1<<32, nil)
	p.mustEnd(1, "serialised integer 4294967296 is too large for type 'j'")
}

// TestErrorsBeforeWork are told twice, and end the connection.
func TestErrorsBeforeWork(t *testing.T) {
	w := newWorld(t)
	tooLong := func(to *protocol.Writer) { to.Uint64(1 << 60) }
	for name, c := range map[string]struct {
		op      protocol.Op
		version uint8
		request func(*protocol.Writer)
		want    string
	}{
		"path elsewhere":    {protocol.OpIsValidPath, 38, func(to *protocol.Writer) { to.String("/foo") }, `path "/foo" is not in the Nix store`},
		"long string":       {protocol.OpIsValidPath, 38, tooLong, "string is too long"},
		"long list":         {protocol.OpQueryValidPaths, 38, tooLong, "list of 1152921504606846976 elements exceeds the limit of 4194304"},
		"padding":           {protocol.OpIsValidPath, 38, func(to *protocol.Writer) { to.Uint64(1); to.WriteString("abcdefgh") }, "non-zero padding"},
		"build mode":        {protocol.OpBuildPaths, 38, func(to *protocol.Writer) { to.DerivedPaths(nil); to.Uint64(3) }, "Invalid build mode"},
		"build mode, large": {protocol.OpBuildPaths, 38, func(to *protocol.Writer) { to.DerivedPaths(nil); to.Uint64(256) }, "serialised integer 256 is too large for type 'h'"},
		"collection":        {protocol.OpCollectGarbage, 38, func(to *protocol.Writer) { to.Uint64(4) }, "Invalid GC action"},
		"hash":              {protocol.OpAddToStoreNar, 38, func(to *protocol.Writer) { to.StorePath(somePath("x")); to.String(""); to.String("zz") }, "hash 'zz' has wrong length for hash algorithm 'sha256'"},
		"signature":         {protocol.OpAddSignatures, 38, func(to *protocol.Writer) { to.StorePath(w.file.Path); to.Strings([]string{"x"}) }, "signature is corrupt"},
		"recursive": {protocol.OpAddToStore, 24, func(to *protocol.Writer) {
			to.String("x")
			to.Bool(true)
			to.Uint64(2)
			to.String("sha256")
		}, "error: unsupported FileIngestionMethod with value of 2; you may need to upgrade nix-daemon"},
		"no derivation": {protocol.OpBuildDerivation, 38, func(to *protocol.Writer) { to.StorePath(somePath("x")) },
			"store path '" + somePath("x").Base() + "' is not a valid derivation path"},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.dial(true, minor(c.version))
			p.send(c.op, c.request)
			p.mustEnd(2, c.want)
		})
	}
}

// TestHalfClosed: a client that has stopped sending, but listens, is told.
func TestHalfClosed(t *testing.T) {
	w := newWorld(t)
	for name, request := range map[string]func(*protocol.Writer){
		"before a field":  func(*protocol.Writer) {},
		"within a field":  func(to *protocol.Writer) { to.Uint64(50); to.WriteString("x") },
		"within a length": func(to *protocol.Writer) { to.WriteString("xyz") },
	} {
		t.Run(name, func(t *testing.T) {
			p := w.dial(true, minor(38))
			p.send(protocol.OpIsValidPath, request)
			p.conn.CloseWrite()
			p.mustEnd(2, textEnd)
		})
	}
	p := w.dial(true, minor(38))
	p.inStep()
	p.conn.CloseWrite()
	p.mustEnd(0, "")
}

// TestErrorsDuringWork leave the connection as it was, wherever in the data
// that follows a request they happen.
func TestErrorsDuringWork(t *testing.T) {
	w := newWorld(t)
	dir := w.store.Dir()
	archive := archiveOf("data")
	info := w.infoOf("data", archive, true)
	wrong := *info
	wrong.NarHash = w.file.NarHash
	claimed := *info
	claimed.Path = somePath("claimed")
	addAs := func(name, method string, data ...string) func(*protocol.Writer) {
		return func(to *protocol.Writer) {
			to.AddToStore(protocol.AddToStoreRequest{Name: name, MethodAlgo: method})
			frames(data...)(to)
		}
	}
	addNAR := func(a addition, data ...string) func(*protocol.Writer) {
		return func(to *protocol.Writer) {
			to.AddToStoreNar(protocol.AddToStoreNarRequest{Info: a.info})
			frames(data...)(to)
		}
	}
	addMany := func(data ...string) func(*protocol.Writer) {
		return func(to *protocol.Writer) {
			to.Bool(false)
			to.Bool(false)
			frames(data...)(to)
		}
	}
	broken := archive[:len(archive)-8] + "x\x00\x00\x00\x00\x00\x00\x00"
	good := addition{info, archive}
	big := strings.Repeat("x", 300<<10)
	for name, c := range map[string]struct {
		op      protocol.Op
		request func(*protocol.Writer)
		want    string // "" for any
	}{
		"name":                {protocol.OpAddToStore, addAs("a/b", "fixed:r:sha256", archive), ""},
		"method":              {protocol.OpAddToStore, addAs("a", "fixed:q:sha256", archive, archive), ""},
		"algorithm":           {protocol.OpAddToStore, addAs("a", "fixed:r:foo", archive), "unknown hash algorithm 'foo', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'"},
		"feature":             {protocol.OpAddToStore, addAs("a", "fixed:git:sha1", archive), ""},
		"archive":             {protocol.OpAddToStore, addAs("a", "fixed:r:sha256", broken), "bad archive: expected tag ')', got 'x'"},
		"no archive":          {protocol.OpAddToStore, addAs("a", "fixed:r:sha256", big, big), ""},
		"short archive":       {protocol.OpAddToStore, addAs("a", "fixed:r:sha256", archive[:40]), "end of string reached"},
		"no data":             {protocol.OpAddToStore, addAs("a", "fixed:r:sha256"), "end of string reached"},
		"NAR, wrong hash":     {protocol.OpAddToStoreNar, addNAR(addition{&wrong, ""}, archive), ""},
		"NAR, wrong address":  {protocol.OpAddToStoreNar, addNAR(addition{&claimed, ""}, archive), lacksSignature},
		"NAR, unsigned":       {protocol.OpAddToStoreNar, addNAR(unsigned(w), unsigned(w).archive), lacksSignature},
		"NAR, short":          {protocol.OpAddToStoreNar, addNAR(good, archive[:50]), "reached end of FramedSource"},
		"NAR, refused, short": {protocol.OpAddToStoreNar, addNAR(unsigned(w), "x"), ""},
		"NAR, broken":         {protocol.OpAddToStoreNar, addNAR(good, broken, big), ""},
		"many, no count":      {protocol.OpAddMultipleToStore, addMany(), "reached end of FramedSource"},
		"many, too few":       {protocol.OpAddMultipleToStore, addMany(entries(w, 2)), "reached end of FramedSource"},
		"many, cut short":     {protocol.OpAddMultipleToStore, addMany(entries(w, 1, addition{info, archive[:60]})), "reached end of FramedSource"},
		"many, unsigned":      {protocol.OpAddMultipleToStore, addMany(entries(w, 2, unsigned(w), good)), lacksSignature},
		"many, wrong hash":    {protocol.OpAddMultipleToStore, addMany(entries(w, 2, addition{&wrong, archive}, good), big), ""},
		"many, bad path":      {protocol.OpAddMultipleToStore, addMany("\x01\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00/foo\x00\x00\x00\x00"), `path "/foo" is not in the Nix store`},
		"text":                {protocol.OpAddTextToStore, func(to *protocol.Writer) { to.AddText(protocol.AddTextRequest{Name: ".."}) }, ""},
		"hash part":           {protocol.OpQueryPathFromHashPart, func(to *protocol.Writer) { to.String("abc") }, "invalid hash part"},
		"not valid":           {protocol.OpNarFromPath, func(to *protocol.Writer) { to.StorePath(somePath("x")) }, "path '" + dir.Print(somePath("x")) + "' is not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.dial(false, minor(38))
			p.send(c.op, c.request)
			e := p.finish(nil)
			if e == nil {
				t.Fatal("was not refused")
			}
			if got := plainText(e.Message); c.want != "" && !matches(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			p.inStep()
			// What was refused does no harm to what is not.
			p.send(protocol.OpAddToStore, addAs("after", "fixed:sha256", name))
			p.mustWork()
			if err := added(p.in); err != nil {
				t.Fatal(err)
			}
			p.inStep()
		})
	}
	clean(w)
}

// clean shows that nothing that was tried has left something wrong behind.
func clean(w *world) {
	w.t.Helper()
	found, err := w.store.Verify(context.Background(), localstore.VerifyOptions{CheckContents: true})
	if found || err != nil {
		w.t.Error("store is damaged: ", found, err)
	}
	if extra := w.extra(); len(extra) != 0 {
		w.t.Error("left behind: ", extra)
	}
}

// TestOldUploads covers the forms in which data came before 1.25.
func TestOldUploads(t *testing.T) {
	w := newWorld(t)
	archive := archiveOf("old")
	info := w.infoOf("old", archive, true)
	broken := archive[:len(archive)-8] + "x\x00\x00\x00\x00\x00\x00\x00"
	upload := func(to *protocol.Writer, method storepath.Method, data string) {
		to.String("old")
		to.Bool(true)
		to.Bool(method == storepath.MethodNAR)
		to.String("sha1")
		to.WriteString(data)
	}
	for _, v := range []uint8{18, 20, 24} {
		p := w.dial(false, minor(v))
		for _, method := range []storepath.Method{storepath.MethodNAR, storepath.MethodFlat} {
			p.send(protocol.OpAddToStore, func(to *protocol.Writer) { upload(to, method, archive) })
			p.mustWork()
			path, err := p.in.StorePath()
			if err != nil || !w.valid(path) {
				t.Fatal(path, err)
			}
			p.inStep()
		}
		// A bad name is found before or after the data: the stream must not care.
		p.send(protocol.OpAddToStore, func(to *protocol.Writer) {
			to.String("a/b")
			to.Bool(true)
			to.Bool(true)
			to.String("sha256")
			to.WriteString(archive)
		})
		if p.finish(nil) == nil {
			t.Fatal("bad name was taken")
		}
		p.inStep()
		// An archive that is none cannot be followed to its end.
		p.send(protocol.OpAddToStore, func(to *protocol.Writer) { upload(to, storepath.MethodNAR, broken) })
		p.mustEnd(1, "error: bad archive: expected tag ')', got 'x'")
	}
	for _, v := range []uint8{18, 20} {
		p := w.dial(false, minor(v))
		p.send(protocol.OpAddToStoreNar, func(to *protocol.Writer) {
			to.AddToStoreNar(protocol.AddToStoreNarRequest{Info: unsigned(w).info})
			to.WriteString(unsigned(w).archive)
		})
		if e := p.finish(nil); e == nil || !matches(plainText(e.Message), "error: "+lacksSignature) {
			t.Fatal(e)
		}
		p.inStep()
		p.send(protocol.OpAddToStoreNar, func(to *protocol.Writer) {
			to.AddToStoreNar(protocol.AddToStoreNarRequest{Info: info})
			to.WriteString(broken)
		})
		if e := p.finish(nil); e == nil {
			t.Fatal("broken archive was taken")
		}
		p.mustEnd(0, "")
	}
	clean(w)
}

// TestPulledUploads covers data that the daemon asks for (1.21 and 1.22).
func TestPulledUploads(t *testing.T) {
	w := newWorld(t)
	for _, v := range []uint8{21, 22} {
		p := w.dial(false, minor(v))
		request := func(info *addition) func(*protocol.Writer) {
			return func(to *protocol.Writer) { to.AddToStoreNar(protocol.AddToStoreNarRequest{Info: info.info}) }
		}
		archive := archiveOf(strings.Repeat(fmt.Sprint(v), 200<<10))
		a := addition{w.infoOf("pulled", archive, true), archive}
		// One byte at a time, at first.
		p.send(protocol.OpAddToStoreNar, request(&a))
		if e := p.finish(io.MultiReader(oneByOne(archive[:100]), strings.NewReader(archive[100:]))); e != nil {
			t.Fatal(e)
		}
		p.inStep()
		if !w.valid(a.info.Path) {
			t.Error("was not added")
		}
		u := unsigned(w)
		for name, c := range map[string]struct {
			a    addition
			data string
			want string
		}{
			"refused":   {u, u.archive, "error: " + lacksSignature},
			"cut short": {addition{w.infoOf("cut", archive, true), ""}, archive[:1000], "error: unexpected end-of-file"},
			"empty":     {addition{w.infoOf("empty", archive, true), ""}, "", "error: unexpected end-of-file"},
		} {
			p.send(protocol.OpAddToStoreNar, request(&c.a))
			if e := p.finish(strings.NewReader(c.data)); e == nil || !matches(plainText(e.Message), c.want) {
				t.Fatalf("%s: %v", name, e)
			}
			p.inStep()
		}
		// An answer that is longer than was asked for.
		p.send(protocol.OpAddToStoreNar, request(&addition{w.infoOf("long", archive, true), ""}))
		if tag, err := p.in.Frame(); tag != protocol.FrameRead || err != nil {
			t.Fatal(tag, err)
		}
		most, _ := p.in.Uint64()
		p.out.Bytes(make([]byte, most+1))
		p.out.Flush() // may find that nobody listens any more
		p.mustEnd(1, "error: bad archive: input doesn't look like a Nix archive")
	}
	clean(w)
}

func oneByOne(s string) io.Reader {
	readers := make([]io.Reader, len(s))
	for i := range s {
		readers[i] = strings.NewReader(s[i : i+1])
	}
	return io.MultiReader(readers...)
}

// TestRawNAR looks at the archive's coroutine by itself.
func TestRawNAR(t *testing.T) {
	w := newWorld(t)
	archive := archiveOf(strings.Repeat("y", 100<<10))
	for _, read := range []int{0, 1, 50 << 10, len(archive)} {
		p := w.dial(true, minor(20))
		in := p.in.Reader
		in.Reset(strings.NewReader(archive + "rest"))
		n := newRawNAR(in)
		if got, err := io.ReadFull(n, make([]byte, read)); got != read || err != nil {
			t.Fatal(got, err)
		}
		if err := n.finish(); err != nil {
			t.Fatal(err)
		}
		n.abandon()
		if rest, err := io.ReadAll(in); string(rest) != "rest" || err != nil {
			t.Errorf("after %d: %q, %v", read, rest, err)
		}
	}
}

// Arguments are marked, quoted or not, and quotes that hold none are left alone. (What upstream's daemon says itself is
// compared in package daemon, TestFramesUpstream.)
func TestHighlight(t *testing.T) {
	for _, want := range []string{
		"serialised integer <12> is too large for type '<j>'",
		"path '</x-y>' is not valid",
		"not an absolute path: <\"relative\">",
		"path '<h-x>' is not a valid store path: name '<x>' must be no longer than <211> characters",
		"Invalid derivation output id <x y>",
		"Invalid derivation output id '<x>': missing '^'",
		"unknown hash algorithm '<x>', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'",
		"experimental Nix feature '<a>' is disabled; add '--extra-experimental-features <a>' to enable it",
		"experimental Nix feature '<a>' is disabled (building 'x' of 'y'); add '--extra-experimental-features <a>' to enable it",
		"content address prefix '<>' is unrecognized. Recogonized prefixes are 'text' or 'fixed'",
		"not a content address because it is not in the form '<prefix>:<rest>': <x>",
		"size mismatch importing path '</s/x>';\n  specified: <120>\n  got:       <112>",
		"<signature> is corrupt",
		"configuration setting '<max-jobs>' should be 'auto' or an integer",
		"while doing this:\npath '<a>': not an absolute path: <\"b\">\nand '<c>'",
		"nothing to mark",
		"",
	} {
		plain := strings.NewReplacer("'<prefix>:<rest>'", "'{prefix}:{rest}'").Replace(want)
		plain = strings.NewReplacer("<", "", ">", "", "{", "<", "}", ">").Replace(plain)
		marked := strings.NewReplacer("'<prefix>:<rest>'", "'{prefix}:{rest}'").Replace(want)
		marked = strings.NewReplacer("<", magenta, ">", normal, "{", "<", "}", ">").Replace(marked)
		if got := highlight(plain); got != marked {
			t.Errorf("%q:\n got %q\nwant %q", plain, got, marked)
		}
	}
}
