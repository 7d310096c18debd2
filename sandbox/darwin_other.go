//go:build !darwin

package sandbox

// unsupported names what this system cannot do of what s asks for.
func (s *Spec) unsupported() string {
	if s.Darwin != nil {
		return "a profile of macOS"
	}
	return ""
}

// tidy removes what a builder has left outside of its directory: nothing here.
func (s *Spec) tidy() {}
