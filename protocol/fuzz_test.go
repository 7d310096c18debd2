package protocol

import (
	"bytes"
	"testing"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// recode decodes one value and, if that worked, encodes it.
type recode func(*Reader, *Writer) error

func again[T any](read func(*Reader) (T, error), write func(*Writer, T)) recode {
	return func(r *Reader, w *Writer) error {
		v, err := read(r)
		if err == nil {
			write(w, v)
		}
		return err
	}
}

// recoders are all decoders that take bytes from a peer.
var recoders = []recode{
	again((*Reader).Info, (*Writer).Info),
	again((*Reader).AddToStore, (*Writer).AddToStore),
	again((*Reader).AddText, (*Writer).AddText),
	again((*Reader).AddToStoreNar, (*Writer).AddToStoreNar),
	again((*Reader).GC, (*Writer).GC),
	again((*Reader).GCResults, (*Writer).GCResults),
	again((*Reader).Roots, (*Writer).Roots),
	again((*Reader).Options, (*Writer).Options),
	again((*Reader).Missing, (*Writer).Missing),
	again((*Reader).OutputMap, (*Writer).OutputMap),
	again((*Reader).DerivedPaths, (*Writer).DerivedPaths),
	again((*Reader).BuildDerivation, func(w *Writer, req BuildDerivationRequest) { w.BuildDerivation(req) }),
	again((*Reader).KeyedBuildResults, (*Writer).KeyedBuildResults),
	again((*Reader).RegisterRealisation, (*Writer).RegisterRealisation),
	again(func(r *Reader) (*pathinfo.Realisation, error) { return r.FoundRealisation(pathinfo.DrvOutput{}) }, (*Writer).FoundRealisation),
	again((*Reader).DrvOutput, (*Writer).DrvOutput),
	again((*Reader).SubstitutableQuery, func(*Writer, map[storepath.Path]storepath.ContentAddress) {}),
	again((*Reader).AddToStoreScanning, (*Writer).AddToStoreScanning),
	again((*Reader).SubmitOutput, (*Writer).SubmitOutput),
	func(r *Reader, w *Writer) error {
		tag, err := r.Frame()
		if err == nil {
			_, err = r.Tell(tag, activity.Discard{})
		}
		return err
	},
	func(r *Reader, w *Writer) error {
		_, err := r.Error()
		return err
	},
}

// FuzzDecode feeds bytes to each decoder in each version. What was accepted
// and encoded again is a fixed point: decoding it gives the same bytes.
func FuzzDecode(f *testing.F) {
	for i := range recoders {
		for _, v := range []uint8{18, 24, 38} {
			f.Add(byte(i), v, []byte{})
		}
	}
	w, reader := ends(DaemonVersion())
	w.Info(testInfo())
	seed := new(bytes.Buffer)
	seed.ReadFrom(reader())
	f.Add(byte(0), uint8(39), seed.Bytes())
	w, reader = ends(BuilderRPCVersion())
	w.SubmitOutput(SubmitOutputRequest{&derivation.SingleDerivedPath{Drv: &derivation.SingleDerivedPath{Path: drvA}, Output: "a"}, "out"})
	seed = new(bytes.Buffer)
	seed.ReadFrom(reader())
	f.Add(byte(18), uint8(39), seed.Bytes())
	f.Fuzz(func(t *testing.T, which, minor byte, data []byte) {
		step := recoders[int(which)%len(recoders)]
		v := Version{Number: Minor(18 + minor%21)}
		if minor >= 39 {
			v = DaemonVersion()
		}
		first, err := run(step, v, data)
		if err != nil {
			return
		}
		second, err := run(step, v, first)
		if len(first) > 0 && err != nil {
			t.Fatalf("what was encoded cannot be decoded: %v\n%q", err, first)
		}
		if !bytes.Equal(first, second) && len(first) > 0 {
			t.Fatalf("encoding changed:\n%q\n%q", first, second)
		}
	})
}

func run(step recode, v Version, data []byte) ([]byte, error) {
	r := NewReader(wire.NewReader(bytes.NewReader(data)), storepath.DefaultDir, v)
	r.Features = derivation.AllFeatures()
	r.StartRequest()
	var out bytes.Buffer
	w := NewWriter(wire.NewWriter(&out), storepath.DefaultDir, v)
	if err := step(r, w); err != nil {
		return nil, err
	}
	w.Flush()
	return out.Bytes(), nil
}
