package status

import "slices"

// Viewer is who asks.
type Viewer struct {
	// User is a name, or a number where there is none.
	User string
	// All is set for root and for those who are trusted: they see everything.
	All bool
	// PID is the process that asks, 0 if the system does not tell.
	PID int
}

// For leaves out what is not the viewer's business. Everybody who may use the daemon sees which derivations are built and
// which paths fetched, how long and with what effort: the store shows the same. For whom that is, on which machine, from
// which cache, what the builders print, and what other clients do, is seen by those whose it is, and by those who are
// trusted.
func (s Server) For(v Viewer) Server {
	if v.All {
		return s
	}
	s.Builds = each(s.Builds, func(b Build) Build { return b.forUser(v.User) })
	s.Waiting = each(s.Waiting, func(w Wait) Wait {
		w.Users, w.Others = only(v.User, w.Users, w.Others)
		return w
	})
	s.Substitutions = each(s.Substitutions, func(f Substitution) Substitution {
		if f.User != v.User {
			f.User, f.Cache = "", ""
		}
		return f
	})
	s.Recent = each(s.Recent, func(e Ended) Ended {
		if slices.Contains(e.Users, v.User) {
			e.Users = []string{v.User}
		} else {
			e.Users, e.Error = nil, ""
		}
		return e
	})
	if c := s.Collection; c != nil && c.For != v.User {
		own := *c
		own.For = ""
		s.Collection = &own
	}
	requests, connections := len(s.Requests), len(s.Connections)
	s.Requests = keep(s.Requests, func(r Request) bool { return r.User == v.User })
	s.Connections = keep(s.Connections, func(c Connection) bool { return c.User == v.User })
	s.OtherRequests += requests - len(s.Requests)
	s.OtherConnections += connections - len(s.Connections)
	return s
}

func (b Build) forUser(user string) Build {
	b.Users, b.Others = only(user, b.Users, b.Others)
	if len(b.Users) == 0 {
		b.LastLine = ""
		if b.Machine != "" {
			b.Machine = "another machine"
		}
	}
	return b
}

// only names one user of those who want something, and counts the others.
func only(user string, users []string, others int) ([]string, int) {
	if slices.Contains(users, user) {
		return []string{user}, others + len(users) - 1
	}
	return []string{}, others + len(users)
}

func each[T any](list []T, change func(T) T) []T {
	out := make([]T, len(list))
	for i, v := range list {
		out[i] = change(v)
	}
	return out
}

func keep[T any](list []T, wanted func(T) bool) []T {
	out := []T{}
	for _, v := range list {
		if wanted(v) {
			out = append(out, v)
		}
	}
	return out
}
