package metrics

import (
	"slices"
	"strings"
	"sync"
)

// Other is the value of all labels of what is counted when there are as many
// members as a family may have.
const Other = "other"

// DefaultMembers is how many members a family may have that does not say.
const DefaultMembers = 64

// CounterVec is a family of counters.
type CounterVec struct {
	labels  int
	most    int
	seconds bool

	mu      sync.RWMutex
	members map[string]*member
	other   *Counter
}

type member struct {
	values  []string
	counter Counter
}

// CounterVec registers a family of counters with at most that many members;
// 0 is DefaultMembers. One whose name ends in "_seconds_total" counts time.
func (r *Registry) CounterVec(name, help string, most int, labels ...string) *CounterVec {
	if most == 0 {
		most = DefaultMembers
	}
	v := &CounterVec{labels: len(labels), most: most, seconds: countsTime(name), members: make(map[string]*member)}
	r.Func(Desc{Name: name, Help: help, Kind: KindCounter, Labels: labels}, v.collect)
	return v
}

// With gives the counter of some label values, one for each label. It may be
// kept.
func (v *CounterVec) With(values ...string) *Counter {
	k := strings.Join(values, "\x00")
	v.mu.RLock()
	m, other := v.members[k], v.other
	v.mu.RUnlock()
	if m != nil {
		return &m.counter
	}
	if other != nil {
		return other
	}
	return v.newMember(k, values)
}

func (v *CounterVec) newMember(k string, values []string) *Counter {
	v.mu.Lock()
	defer v.mu.Unlock()
	if m := v.members[k]; m != nil {
		return &m.counter
	}
	if len(v.members) >= v.most {
		if v.other == nil {
			v.other = &Counter{seconds: v.seconds}
		}
		return v.other
	}
	m := &member{values: slices.Clone(values)}
	m.counter.seconds = v.seconds
	v.members[k] = m
	return &m.counter
}

func (v *CounterVec) collect(emit func(value float64, labels ...string)) {
	v.mu.RLock()
	members := make([]*member, 0, len(v.members))
	for _, m := range v.members {
		members = append(members, m)
	}
	other := v.other
	v.mu.RUnlock()
	slices.SortFunc(members, func(a, b *member) int { return slices.Compare(a.values, b.values) })
	for _, m := range members {
		emit(m.counter.Value(), m.values...)
	}
	if other != nil {
		emit(other.Value(), slices.Repeat([]string{Other}, v.labels)...)
	}
}
