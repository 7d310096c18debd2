package remote

import (
	"context"
	"os"
	"strconv"
	"strings"

	"nixdaemon/protocol/activity"
	"nixdaemon/worker/build"
	"nixdaemon/worker/settings"
)

// pool are the machines of one value of the setting builders, among which we choose ourselves (build-remote.cc).
type pool struct {
	b        *Builders
	key      string
	system   string
	machines []*Machine
	broken   error // the setting cannot be understood
}

var _ build.Machines = (*pool)(nil)

// poolFor reads the setting, files and all; nil if it names no machine.
func (b *Builders) poolFor(set *settings.Settings) build.Machines {
	if strings.TrimSpace(set.Builders) == "" {
		return nil
	}
	p := &pool{b: b, system: set.System}
	p.machines, p.broken = Parse(set.Builders, set.System)
	if p.broken == nil && len(p.machines) == 0 {
		return nil
	}
	p.key = "pool\x00" + set.System + "\x00" + set.Builders
	for _, m := range p.machines {
		p.key += "\x00" + m.describe() + m.URI + " " + m.SSHKey + " " + m.HostKey + " " + strconv.FormatFloat(float64(m.SpeedFactor), 'g', -1, 32)
	}
	return p
}

// Key implements build.Machines.
func (p *pool) Key() string { return p.key }

// Retain implements build.Machines. What is worth keeping belongs to the Builders.
func (p *pool) Retain() build.Machines { return p }

// Release implements build.Machines.
func (p *pool) Release() {}

// Changed implements build.Machines.
func (p *pool) Changed() <-chan struct{} { return p.b.sites.changed() }

// Ask implements build.Machines.
func (p *pool) Ask(ctx context.Context, need build.Need) (build.Answer, build.Reservation, error) {
	if p.broken != nil {
		need.Log.Message(activity.Error, build.ErrorMessage(p.broken))
		return build.Decline, nil, build.Trace(whileAsked, errEOF)
	}
	// Machines are left out of the search for two reasons: they have not answered others lately, or us now.
	avoided, dead := make(map[*Machine]bool), make(map[*Machine]bool)
	for _, m := range p.machines {
		avoided[m] = p.b.sites.avoided(m)
	}
	for {
		c, err := p.choose(ctx, need, func(m *Machine) bool { return avoided[m] || dead[m] })
		if err != nil {
			return build.Decline, nil, err
		}
		if c.machine == nil {
			if !c.fits && !need.Local && len(avoided) > 0 {
				clear(avoided) // rather a machine that is likely to be down than none
				continue
			}
			return p.noMachine(need, c.fits), nil, nil
		}
		r, err := p.connect(ctx, need, c)
		if err == nil {
			return build.Accept, r, nil
		}
		dead[c.machine] = true
		uri := c.machine.URI
		c.drop()
		if ctx.Err() != nil {
			return build.Decline, nil, context.Cause(ctx)
		}
		need.Log.Message(activity.Error, "cannot build on '"+uri+"': "+build.ErrorMessage(err)+said(err))
	}
}

// choice is the machine that is best for a derivation, and its slot.
type choice struct {
	machine *Machine
	slot    *os.File
	load    uint
	fits    bool // some machine fits, busy or not
}

// choose takes a slot of the best machine.
func (p *pool) choose(ctx context.Context, need build.Need, leftOut func(*Machine) bool) (best choice, err error) {
	lock, err := p.b.load.lock(ctx)
	if err != nil {
		return choice{}, err
	}
	defer lock.Close()
	for _, m := range p.machines {
		if leftOut(m) || !m.fits(need.System, need.Features) {
			continue
		}
		best.fits = true
		slot, load, err := p.b.load.find(m)
		if err != nil {
			best.drop()
			return choice{}, err
		}
		if slot == nil {
			continue
		}
		if best.machine != nil && !m.better(load, best.machine, best.load) {
			slot.Close()
			continue
		}
		best.drop()
		best.machine, best.slot, best.load = m, slot, load
	}
	if best.slot != nil {
		err = touch(best.slot)
	}
	return best, err
}

func (c *choice) drop() {
	if c.slot != nil {
		c.slot.Close()
	}
	c.slot, c.machine = nil, nil
}

// noMachine answers when there is none: wait, or build here if that can be done at once.
func (p *pool) noMachine(need build.Need, fits bool) build.Answer {
	if fits && !need.Willing {
		return build.Postpone
	}
	text := build.Textf("Failed to find a machine for remote build!\nderivation: %s\nrequired (system, features): (%s, [%s])"+
		"\n%s available machines:\n(systems, maxjobs, supportedFeatures, mandatoryFeatures)",
		need.DrvPath.Base(), need.System, strings.Join(need.Features, ", "), strconv.Itoa(len(p.machines)))
	level := activity.Warn
	if need.Local {
		level = activity.Chatty
	}
	parts := []string{text.Coloured()}
	for _, m := range p.machines {
		parts = append(parts, m.describe())
	}
	need.Log.Message(level, strings.Join(parts, "\n"))
	return build.Decline
}

// describe lists what counts for whether a machine fits.
func (m *Machine) describe() string {
	return build.Textf("([%s], %s, [%s], [%s])", strings.Join(m.Systems, ", "), strconv.FormatUint(uint64(m.MaxJobs), 10),
		strings.Join(m.Supported, ", "), strings.Join(m.Mandatory, ", ")).Coloured()
}

// connect reaches a machine.
func (p *pool) connect(ctx context.Context, need build.Need, c choice) (*reservation, error) {
	log := need.Log
	id := p.b.o.IDs.Next()
	log.Start(id, activity.Talkative, activity.Unknown, "connecting to '"+c.machine.URI+"'", nil, 0)
	defer log.Stop(id)
	l, err := p.b.sites.connect(ctx, c.machine, need.Settings)
	if err != nil {
		return nil, err
	}
	return &reservation{b: p.b, machine: c.machine, slot: c.slot, link: l, need: need}, nil
}
