package derivation

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"nixdaemon/protocol/storepath"
)

// CheckInvariants tells whether a derivation's outputs are where they belong:
// an error for a wrong path, warnings for what upstream only warns of
// (libstore/derivations.cc, checkInvariants). Errors but that of a wrong name
// have a trace.
func (h *Hasher) CheckInvariants(ctx context.Context, d *Derivation, drvPath storepath.Path) (warnings []string, err error) {
	name, err := NameFromPath(drvPath)
	if err != nil {
		return nil, err
	}
	if name != d.Name {
		return nil, fmt.Errorf("derivation '%s' has name '%s' which does not match its path", h.Dir.Print(drvPath), d.Name)
	}
	p := &outputCheck{hasher: h, d: d}
	if err := p.run(ctx); err != nil {
		return nil, &TraceError{fmt.Sprintf("while checking derivation '%s'", h.Dir.Print(drvPath)), err}
	}
	return p.warnings, nil
}

// FillOutputPaths turns deferred outputs whose paths can be computed into
// input-addressed ones, and sets the variables named after outputs that are
// missing or empty. What is set already is checked (libstore/derivations.cc,
// fillInOutputPaths).
func (h *Hasher) FillOutputPaths(ctx context.Context, d *Derivation) error {
	return (&outputCheck{hasher: h, d: d, fill: true}).run(ctx)
}

// outputCheck checks the outputs of one derivation, or fills them in.
type outputCheck struct {
	hasher   *Hasher
	d        *Derivation
	fill     bool
	submits  bool // the builder is not told of outputs in variables
	modulo   *Modulo
	warnings []string
}

func (c *outputCheck) run(ctx context.Context) error {
	c.submits = c.d.submitsOutputs(c.hasher.Dir)
	for _, name := range c.d.OutputNames() {
		o := c.d.Outputs[name]
		var err error
		switch {
		case c.submits && (o.Kind == InputAddressed || o.Kind == Deferred):
			err = fmt.Errorf("derivation uses the '%s' feature, which may only be used with content-addressing derivations", FeatureBuilderRPC)
		case o.Kind == InputAddressed || o.Kind == Deferred:
			err = c.addressed(ctx, name, o)
		case o.Kind == FixedCA && !c.submits:
			var p storepath.Path
			if p, err = o.OutputPath(c.hasher.Dir, c.d.Name, name); err == nil {
				err = c.env(name, p)
			}
		}
		if err != nil {
			return err
		}
	}
	_, err := c.d.Type()
	return err
}

// addressed checks an output whose path follows from the derivation.
func (c *outputCheck) addressed(ctx context.Context, name string, o Output) error {
	if c.modulo == nil {
		m, err := c.hasher.Modulo(ctx, c.d, true)
		if err != nil {
			return err
		}
		c.modulo = &m
	}
	dir := c.hasher.Dir
	if c.modulo.Deferred {
		if o.Kind == InputAddressed {
			return fmt.Errorf("derivation has incorrect output '%s', should be deferred", dir.Print(o.Path))
		}
		return nil
	}
	p, err := dir.MakeOutputPath(name, c.modulo.Outputs[name], c.d.Name)
	switch {
	case err != nil:
		return err
	case o.Kind == InputAddressed && o.Path == p:
		return nil
	case o.Kind == InputAddressed:
		return fmt.Errorf("derivation has incorrect output '%s', should be '%s'", dir.Print(o.Path), dir.Print(p))
	case c.fill:
		c.d.Outputs[name] = Output{Kind: InputAddressed, Path: p}
	default:
		c.warnings = append(c.warnings, fmt.Sprintf("derivation has incorrect deferred output, should be '%s'.\n"+
			"This will be an error in future versions of Nix; compatibility of CA derivations will be broken.", dir.Print(p)))
	}
	return c.env(name, p)
}

// env checks the variable named after an output.
func (c *outputCheck) env(name string, p storepath.Path) error {
	want := c.hasher.Dir.Print(p)
	value, ok := c.d.Env[name]
	if c.fill && value == "" {
		if c.d.Env == nil {
			c.d.Env = make(map[string]string)
		}
		c.d.Env[name] = want
		return nil
	}
	switch {
	case !ok:
		return fmt.Errorf("derivation has missing environment variable '%s', should be '%s' but is not present", name, want)
	case value != want:
		return fmt.Errorf("derivation has incorrect environment variable '%s', should be '%s' but is actually '%s'", name, want, value)
	}
	return nil
}

// FeatureBuilderRPC is the system feature of derivations whose builders say
// themselves which paths their outputs are (since 2.36).
const FeatureBuilderRPC = "builder-rpc-v0"

// submitsOutputs tells whether the derivation requires FeatureBuilderRPC. What
// cannot be parsed requires nothing as yet: to say so is not for here.
func (d *Derivation) submitsOutputs(dir storepath.Dir) bool {
	const attribute = "requiredSystemFeatures"
	text := d.Env[attribute]
	if d.StructuredAttrs != nil {
		text = *d.StructuredAttrs
	}
	if !strings.Contains(text, FeatureBuilderRPC) { // spares most their parsing
		return false
	}
	o, _, err := d.Options(dir, AllFeatures())
	return err == nil && slices.Contains(o.RequiredSystemFeatures, FeatureBuilderRPC)
}
