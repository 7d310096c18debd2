package metrics

import (
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// ContentType is that of the text format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// ServeHTTP answers with all numbers.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only reading", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", ContentType)
	if req.Method == http.MethodGet {
		_, _ = r.WriteTo(w) // the reader is gone
	}
}

// WriteTo writes all numbers in Prometheus' text format.
func (r *Registry) WriteTo(w io.Writer) (int64, error) {
	var b []byte
	for _, f := range r.sorted() {
		b = f.append(b)
	}
	n, err := w.Write(b)
	return int64(n), err
}

func (f *family) append(b []byte) []byte {
	begun := false
	f.collect(func(s sample) {
		if !begun {
			begun = true
			b = append(append(append(b, "# HELP "...), f.Name...), ' ')
			b = append(escape(b, f.Help, false), "\n# TYPE "...)
			b = append(append(append(append(b, f.Name...), ' '), f.Kind...), '\n')
		}
		if s.buckets != nil {
			b = f.appendBuckets(b, s)
			return
		}
		b = f.appendLabels(append(b, f.Name...), s.values, "")
		b = appendNumber(b, s.value)
	})
	return b
}

// appendBuckets reads each bucket once, so that the sums hold while others count.
func (f *family) appendBuckets(b []byte, s sample) []byte {
	var total uint64
	for i := range s.buckets.counts {
		bound := infinity
		if i < len(s.buckets.bounds) {
			bound = s.buckets.bounds[i].Seconds()
		}
		total += s.buckets.counts[i].Load()
		b = f.appendLabels(append(append(b, f.Name...), "_bucket"...), s.values, string(formatFloat(nil, bound)))
		b = appendNumber(b, float64(total))
	}
	b = f.appendLabels(append(append(b, f.Name...), "_sum"...), s.values, "")
	b = appendNumber(b, float64(s.buckets.sum.Load())/1e9)
	b = f.appendLabels(append(append(b, f.Name...), "_count"...), s.values, "")
	return appendNumber(b, float64(total))
}

func (f *family) appendLabels(b []byte, values []string, le string) []byte {
	sep := byte('{')
	label := func(name, value string) {
		b = append(append(append(b, sep), name...), '=', '"')
		b = append(escape(b, value, true), '"')
		sep = ','
	}
	for i, name := range f.Labels {
		label(name, values[i])
	}
	if le != "" {
		label("le", le)
	}
	if sep == ',' {
		b = append(b, '}')
	}
	return append(b, ' ')
}

func appendNumber(b []byte, n float64) []byte { return append(formatFloat(b, n), '\n') }

func formatFloat(b []byte, n float64) []byte {
	if math.IsInf(n, 1) {
		return append(b, "+Inf"...)
	}
	return strconv.AppendFloat(b, n, 'g', -1, 64)
}

// escape appends text as a label's value, or as a help text.
func escape(b []byte, s string, quoted bool) []byte {
	s = strings.ToValidUTF8(s, "\ufffd")
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\\' || c == '"' && quoted:
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return b
}
