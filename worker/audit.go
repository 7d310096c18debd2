package worker

import "nixdaemon/protocol/storepath"

// Privilege is a deed for which one must be trusted, or which concerns what
// others may have in the store.
type Privilege struct {
	// Action names the deed, one of the constants below.
	Action Action
	// Subject is what it was done to: store paths, settings, a file name. It
	// may be empty. There is no secret in it.
	Subject []string
	// Details has more about it, as names and values. It may be nil.
	Details map[string]uint64
	// Err says why it was refused or failed; nil if it was done. Refused tells
	// the two apart.
	Err     error
	Refused bool
}

// Action names a privileged deed.
type Action string

// The deeds.
const (
	// ActionOverride sets settings that others may not set; the subjects are
	// "name" or "name = value".
	ActionOverride Action = "override-settings"
	// ActionImport adds paths whose signatures are not looked at.
	ActionImport Action = "add-unchecked"
	// ActionBuild builds a derivation that the client made up, whose outputs
	// are named by what it says of its inputs.
	ActionBuild Action = "build-given-derivation"
	// ActionRepair makes paths anew, or verifies the store and repairs it.
	ActionRepair Action = "repair"
	// ActionVerify verifies the store.
	ActionVerify Action = "verify"
	// ActionPermRoot makes a permanent root, at a path of the client's choice.
	ActionPermRoot Action = "add-permanent-root"
	// ActionLog replaces the log of a build.
	ActionLog Action = "add-build-log"
	// ActionRealisation says what a derivation's output is.
	ActionRealisation Action = "register-realisation"
	// ActionCollect deletes garbage.
	ActionCollect Action = "collect-garbage"
	// ActionOptimise hard-links equal files.
	ActionOptimise Action = "optimise"
	// ActionCancel ends a build for all who want it.
	ActionCancel Action = "cancel-build"
)

// audited runs f, a deed, and tells of it. A refusal as its error means that it
// was refused. about, which may be nil, says afterwards what it was done to.
func (c *conn) audited(action Action, about func(*Privilege), f func() error) error {
	err := f()
	if c.o.Audit != nil {
		_, refused := err.(refusal)
		p := Privilege{Action: action, Err: err, Refused: refused}
		if about != nil {
			about(&p)
		}
		c.o.Audit(p)
	}
	return err
}

// paths has a deed be about store paths.
func (c *conn) paths(list ...storepath.Path) func(*Privilege) {
	return func(p *Privilege) {
		for _, path := range list[:min(len(list), maxSubjects)] {
			p.Subject = append(p.Subject, c.o.Store.Dir().Print(path))
		}
		if len(list) > 1 {
			p.Details = map[string]uint64{"paths": uint64(len(list))}
		}
	}
}

// maxSubjects bounds what is told of one deed.
const maxSubjects = 20
