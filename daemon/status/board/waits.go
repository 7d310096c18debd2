package board

import (
	"nixdaemon/daemon/status"
	"nixdaemon/worker/build"
)

// mostWaits bounds what is listed of each request that waits, and of all together.
const mostWaits = 100

// AddWaits lists what waits for inputs and turns. That is looked at by the requests themselves, so it is for those alone
// who want to see it.
func (b *Board) AddWaits(s *status.Server) {
	from := b.sources.Load()
	s.Waiting = []status.Wait{}
	if from.Waits == nil {
		return
	}
	list, all := from.Waits(mostWaits)
	type key struct {
		fetch bool
		path  string
	}
	at := make(map[key]int)
	seen := 0
	for _, w := range list {
		what := from.Dir.Print(w.Path)
		i, known := at[key{w.Fetch, what}]
		if !known {
			if len(s.Waiting) == mostWaits {
				continue
			}
			i = len(s.Waiting)
			at[key{w.Fetch, what}] = i
			s.Waiting = append(s.Waiting, status.Wait{Kind: kind(w.Fetch), What: what, Reason: w.Reason, Open: w.Open, Users: []string{}})
			for _, c := range w.For {
				s.Waiting[i].For = append(s.Waiting[i].For, status.Cause{Kind: kind(c.Fetch), What: from.Dir.Print(c.Path), State: c.State})
			}
		}
		seen++
		s.Waiting[i].Users = users(append(clients(s.Waiting[i].Users), w.ClientID))
	}
	s.MoreWaiting = all - seen
}

func kind(fetch bool) string {
	if fetch {
		return status.KindSubstitution
	}
	return status.KindBuild
}

func clients(users []string) []build.ClientID {
	var list []build.ClientID
	for _, u := range users {
		list = append(list, build.ClientID{User: u})
	}
	return list
}
