package protocol

import "nixdaemon/protocol/wire"

// maxOverrides bounds the settings that a client overrides; upstream has
// about a hundred.
const maxOverrides = 4096

// ClientOptions is OpSetOptions.
//
//	keep failed, keep going, fall back, verbosity, build jobs, silent time,
//	1 (build hook), build verbosity, 0 (log type), 0 (build trace), cores,
//	substitute, count, then name and value of each override
type ClientOptions struct {
	KeepFailed, KeepGoing, Fallback bool
	Verbosity                       uint64
	MaxJobs                         uint64
	// MaxSilentTime is in seconds.
	MaxSilentTime uint64
	// BuildVerbosity is 0 to show the output of builds.
	BuildVerbosity uint64
	Cores          uint64
	Substitute     bool
	Overrides      []Override
}

// Override is a setting that the client has changed.
type Override struct{ Name, Value string }

// Options reads the request.
func (r *Reader) Options() (ClientOptions, error) {
	var n [12]uint32
	for i := range n {
		var err error
		if n[i], err = r.Uint32(); err != nil {
			return ClientOptions{}, err
		}
	}
	o := ClientOptions{
		KeepFailed: n[0] != 0, KeepGoing: n[1] != 0, Fallback: n[2] != 0,
		Verbosity: uint64(n[3]), MaxJobs: uint64(n[4]), MaxSilentTime: uint64(n[5]),
		BuildVerbosity: uint64(n[7]), Cores: uint64(n[10]), Substitute: n[11] != 0,
	}
	count, err := r.Count(maxOverrides)
	if err != nil {
		return o, err
	}
	o.Overrides = make([]Override, 0, wire.Capacity(count))
	for range count {
		name, err := r.Text()
		if err != nil {
			return o, err
		}
		value, err := r.Text()
		if err != nil {
			return o, err
		}
		o.Overrides = append(o.Overrides, Override{name, value})
	}
	return o, nil
}

// Options writes the request.
func (w *Writer) Options(o ClientOptions) {
	w.Bool(o.KeepFailed)
	w.Bool(o.KeepGoing)
	w.Bool(o.Fallback)
	w.Uint64(o.Verbosity)
	w.Uint64(o.MaxJobs)
	w.Uint64(o.MaxSilentTime)
	w.Uint64(1)
	w.Uint64(o.BuildVerbosity)
	w.Uint64(0)
	w.Uint64(0)
	w.Uint64(o.Cores)
	w.Bool(o.Substitute)
	w.Uint64(uint64(len(o.Overrides)))
	for _, override := range o.Overrides {
		w.String(override.Name)
		w.String(override.Value)
	}
}
