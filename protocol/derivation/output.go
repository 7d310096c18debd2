package derivation

import (
	"maps"
	"slices"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// impureMark stands where a fixed output has its digest.
const impureMark = "impure"

// ParseOutput reads an output's three texts, as they stand in the ATerm and on
// the wire: path, "[r:|git:|text:]<algo>" and digest (libstore/derivations.cc,
// parseDerivationOutput). drvName and name are the derivation's and the output's.
// The path of a fixed output says what its digest says already, and must agree
// with it: otherwise a derivation could show one path and make another
// (upstream from 2.36 on).
func ParseOutput(dir storepath.Dir, drvName, name, path, algo, hash string, f Features) (Output, error) {
	if algo != "" {
		o, err := parseCAOutput(path, algo, hash, f)
		if err == nil && o.Kind == FixedCA {
			err = o.checkPath(dir, drvName, name, path)
		}
		return o, err
	}
	if path == "" {
		return Output{Kind: Deferred}, nil
	}
	if err := checkAbsolute(path); err != nil {
		return Output{}, err
	}
	p, err := dir.Parse(path)
	return Output{Kind: InputAddressed, Path: p}, err
}

func parseCAOutput(path, methodAlgo, hash string, f Features) (Output, error) {
	method, algo, err := storepath.ParseMethodAlgo(methodAlgo)
	if err := requireMethod(method, algo, f); err != nil {
		return Output{}, err
	}
	if err != nil {
		return Output{}, err
	}
	switch hash {
	case impureMark:
		if err := require(f.ImpureDerivations, "impure-derivations", ""); err != nil {
			return Output{}, err
		}
		if path != "" {
			return Output{}, badFormat("impure derivation output should not specify output path")
		}
		return Output{Kind: Impure, Method: method, Algo: algo}, nil
	case "":
		if err := require(f.CADerivations, "ca-derivations", ""); err != nil {
			return Output{}, err
		}
		if path != "" {
			return Output{}, badFormat("content-addressing derivation output should not specify output path")
		}
		return Output{Kind: FloatingCA, Method: method, Algo: algo}, nil
	}
	if err := checkAbsolute(path); err != nil {
		return Output{}, err
	}
	h, err := nixhash.ParseUnprefixed(hash, algo)
	return Output{Kind: FixedCA, CA: storepath.ContentAddress{Method: method, Hash: h}}, err
}

// checkPath compares the path that a fixed output is said to have with the one
// that its content address gives.
func (o Output) checkPath(dir storepath.Dir, drvName, name, path string) error {
	want, err := o.OutputPath(dir, drvName, name)
	if err != nil {
		return err
	}
	if dir.Print(want) != path {
		return badFormat("derivation output '%s' has path '%s', which does not match its content address", name, path)
	}
	return nil
}

func requireMethod(method storepath.Method, algo nixhash.Algo, f Features) error {
	switch {
	case method == storepath.MethodGit && !f.GitHashing:
		return require(false, "git-hashing", "")
	case method == storepath.MethodText && !f.DynamicDerivations:
		return require(false, "dynamic-derivations", "text-hashed derivation output")
	case algo == nixhash.BLAKE3 && !f.BLAKE3Hashes:
		return require(false, "blake3-hashes", "")
	}
	return nil
}

// Texts gives what ParseOutput reads. The path of a fixed output is computed
// from its content address.
func (o Output) Texts(dir storepath.Dir, drvName, outputName string) (path, algo, hash string, err error) {
	switch o.Kind {
	case InputAddressed:
		return dir.Print(o.Path), "", "", nil
	case FixedCA:
		p, err := o.OutputPath(dir, drvName, outputName)
		return dir.Print(p), o.methodAlgo(), o.CA.Hash.Base16(), err
	case FloatingCA:
		return "", o.methodAlgo(), "", nil
	case Impure:
		return "", o.methodAlgo(), impureMark, nil
	}
	return "", "", "", nil
}

func (o Output) methodAlgo() string {
	if o.Kind == FixedCA {
		return o.CA.Method.Prefix() + o.CA.Hash.Algo().String()
	}
	return o.Method.Prefix() + o.Algo.String()
}

// OutputPath is the output's path where it is known before the build, else
// zero.
func (o Output) OutputPath(dir storepath.Dir, drvName, outputName string) (storepath.Path, error) {
	switch o.Kind {
	case InputAddressed:
		return o.Path, nil
	case FixedCA:
		return dir.FromContentAddress(storepath.OutputPathName(drvName, outputName), o.CA, storepath.References{})
	}
	return storepath.Path{}, nil
}

// OutputNames gives the outputs' names in order.
func (d *BasicDerivation) OutputNames() []string {
	return slices.Sorted(maps.Keys(d.Outputs))
}

// OutputPaths gives each output's path, zero where it is not known before the
// build.
func (d *BasicDerivation) OutputPaths(dir storepath.Dir) (map[string]storepath.Path, error) {
	paths := make(map[string]storepath.Path, len(d.Outputs))
	for name, o := range d.Outputs {
		p, err := o.OutputPath(dir, d.Name, name)
		if err != nil {
			return nil, err
		}
		paths[name] = p
	}
	return paths, nil
}
