package config

import (
	"fmt"
	"path"
	"strings"

	"nixdaemon/worker/settings"
)

// Bounds against configuration that includes itself; upstream overflows its stack.
const (
	maxIncludeDepth = 32
	maxIncludes     = 1024
)

// files applies the configuration files and NIX_CONFIG. Only what comes after the system's file counts as overridden.
func (l *loader) files() error {
	if err := l.applyFile(l.cfg.ConfFile); err != nil {
		return err
	}
	l.cfg.Settings.ResetOverridden()
	for i := len(l.cfg.UserConfFiles) - 1; i >= 0; i-- {
		if err := l.applyFile(l.cfg.UserConfFiles[i]); err != nil {
			return err
		}
	}
	if text, ok := l.in.Getenv("NIX_CONFIG"); ok {
		return l.apply(text, "NIX_CONFIG")
	}
	return nil
}

// applyFile passes over a file that cannot be read.
func (l *loader) applyFile(file string) error {
	text, err := l.in.FS.ReadFile(file)
	if err != nil {
		return nil
	}
	return l.apply(string(text), file)
}

// apply sets what a text and its includes say: experimental features first, since other settings depend on them.
func (l *loader) apply(text, file string) error {
	l.includes = 0
	pairs, err := l.parse(text, file, 0)
	if err != nil {
		return err
	}
	_, hasNixPath := l.in.Getenv("NIX_PATH")
	for _, features := range []bool{true, false} {
		for _, p := range pairs {
			name := strings.TrimPrefix(p.Name, "extra-")
			if (name == "experimental-features") != features || name == "nix-path" && hasNixPath {
				continue
			}
			if err := l.set(p.Name, p.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// parse returns the settings of a text in order, those of included files in the place of the include.
func (l *loader) parse(text, file string, depth int) ([]settings.NameValue, error) {
	var pairs []settings.NameValue
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := settings.Tokens(line)
		if len(words) == 0 {
			continue
		}
		more, err := l.parseLine(line, words, file, depth)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, more...)
	}
	return pairs, nil
}

func (l *loader) parseLine(line string, words []string, file string, depth int) ([]settings.NameValue, error) {
	isInclude := words[0] == "include" || words[0] == "!include"
	switch {
	case isInclude && len(words) == 2:
		return l.include(words[1], file, words[0] == "!include", depth)
	case isInclude || len(words) < 2 || words[1] != "=":
		return nil, &settings.UsageError{Msg: fmt.Sprintf("syntax error in configuration line '%s' in %s",
			line, settings.QuotePath(file))}
	}
	return []settings.NameValue{{Name: words[0], Value: strings.Join(words[2:], " ")}}, nil
}

// include reads a file named relative to the one that includes it. One that exists and cannot be read is passed over.
func (l *loader) include(name, from string, optional bool, depth int) ([]settings.NameValue, error) {
	if name[0] != '/' {
		dir, _ := path.Split(from)
		name = dir + name
	}
	file, err := settings.ParseAbsPath("include", name)
	if err != nil {
		return nil, err
	}
	if !l.in.FS.Exists(file) {
		if optional {
			return nil, nil
		}
		return nil, fmt.Errorf("file %s included from %s not found", settings.QuotePath(file), settings.QuotePath(from))
	}
	if l.includes++; l.includes > maxIncludes || depth >= maxIncludeDepth {
		return nil, fmt.Errorf("file %s included from %s: too many includes", settings.QuotePath(file), settings.QuotePath(from))
	}
	text, err := l.in.FS.ReadFile(file)
	if err != nil {
		return nil, nil
	}
	return l.parse(string(text), file, depth+1)
}
