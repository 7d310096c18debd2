package view

import (
	"fmt"
	"slices"
	"strings"
)

// The sections by how much they matter: what ranks higher is cut first.
const (
	rankHead = iota
	rankBuilds
	rankGarbage
	rankFetches
	rankWaiting
	rankClients
	rankRecent
)

// section is some lines that belong together.
type section struct {
	rank  int
	title string
	items []item
	// hidden is how many have been taken away, for which there is a line.
	hidden int
}

// item is one thing of a section: a line, and perhaps one more that can be done without.
type item struct {
	line, below string
	count       int // of things that it stands for, if not 1
}

func (s *section) add(line string) { s.items = append(s.items, item{line: line}) }

func (s *section) height() int {
	n := len(s.items)
	for _, i := range s.items {
		if i.below != "" {
			n++
		}
	}
	if s.hidden > 0 {
		n++
	}
	if s.title != "" {
		n += 2 // and an empty line above
	}
	return n
}

// titled adds a section with a title if there is something in it.
func (p *painter) titled(title string, s section) {
	if len(s.items) == 0 {
		return
	}
	s.title = p.paint(bold, p.cut(title))
	p.sections = append(p.sections, s)
}

// fit gives the lines of all sections, as many as there is room for.
func (p *painter) fit() []string {
	if p.o.Height > 0 {
		p.shrink()
	}
	var lines []string
	for _, s := range p.sections {
		if s.title != "" {
			lines = append(lines, "", s.title)
		}
		for _, i := range s.items {
			lines = append(lines, i.line)
			if i.below != "" {
				lines = append(lines, i.below)
			}
		}
		if s.hidden > 0 {
			lines = append(lines, p.cut(p.paint(dim, fmt.Sprintf("  and %d more", s.hidden))))
		}
	}
	if p.o.Height > 0 && len(lines) > p.o.Height {
		lines = lines[:p.o.Height]
	}
	return lines
}

func (p *painter) height() int {
	n := 0
	for i := range p.sections {
		n += p.sections[i].height()
	}
	return n
}

// shrink takes things away until the rest fits, what matters least first.
func (p *painter) shrink() {
	for _, step := range []struct{ rank, least int }{
		{rankRecent, 3}, {rankClients, 3}, {rankWaiting, 3}, {rankRecent, 0}, {rankFetches, 3}, {rankClients, 1}, {rankWaiting, 1},
		{rankBuilds, 5}, {rankClients, 0}, {rankFetches, 1}, {rankBuilds, 3}, {rankWaiting, 0}, {rankFetches, 0}, {rankGarbage, 0}, {rankBuilds, 1},
	} {
		for i := range p.sections {
			s := &p.sections[i]
			switch {
			case s.rank != step.rank || p.height() <= p.o.Height:
			case step.least == 0:
				*s = section{rank: s.rank}
			default:
				p.drop(s, step.least)
			}
		}
	}
}

// drop takes second lines and then the last things of a section away, down to so many.
func (p *painter) drop(s *section, least int) {
	for i := len(s.items) - 1; i >= 0 && p.height() > p.o.Height; i-- {
		s.items[i].below = ""
	}
	for len(s.items) > least && p.height() > p.o.Height {
		last := len(s.items) - 1
		s.hidden += max(1, s.items[last].count)
		s.items = s.items[:last]
	}
}

// column is one of a table.
type column struct {
	title string
	right bool // adjusted to the right
	flex  bool // shortened when there is no room
}

// table has columns as wide as what is in them.
type table struct {
	columns []column
	rows    []row
}

// row is one thing of a table.
type row struct {
	cells []string
	below string // the second line
	count int    // of things that it stands for, if not 1
}

func (t *table) add(below string, cells ...string) {
	t.rows = append(t.rows, row{cells: cells, below: below})
}

// table adds a section with a table if there is something in it. The first column's title is that of the section.
func (p *painter) table(t *table, rank int) {
	if len(t.rows) == 0 {
		return
	}
	widths := t.widths(p.o.Width)
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
	}
	// The title of the section stands two columns before its entries.
	above := slices.Clone(widths)
	above[0] += gap
	head := strings.TrimRight(t.row(titles, above), " ")
	s := section{rank: rank, title: p.cut(p.paint(bold, titles[0]) + p.paint(dim, strings.TrimPrefix(head, titles[0])))}
	for _, r := range t.rows {
		one := item{line: p.cut(strings.TrimRight("  "+t.row(r.cells, widths), " ")), count: r.count}
		if r.below != "" {
			one.below = p.paint(dim, p.cut("      "+r.below))
		}
		s.items = append(s.items, one)
	}
	p.sections = append(p.sections, s)
}

const gap = 2

// widths are those of the columns, the flexible ones shortened until all fit.
func (t *table) widths(total int) []int {
	widths := make([]int, len(t.columns))
	sum := gap
	for i, c := range t.columns {
		widths[i] = width(c.title)
		for _, r := range t.rows {
			widths[i] = max(widths[i], width(r.cells[i]))
		}
		sum += widths[i] + gap
	}
	const narrowest = 12
	for over := sum - gap - total; total > 0 && over > 0; over-- {
		widest := -1
		for i, c := range t.columns {
			if c.flex && widths[i] > narrowest && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

func (t *table) row(cells []string, widths []int) string {
	var line strings.Builder
	for i, c := range t.columns {
		text := shorten(cells[i], widths[i])
		pad := strings.Repeat(" ", widths[i]-width(text))
		if i > 0 {
			line.WriteString(strings.Repeat(" ", gap))
		}
		if c.right {
			line.WriteString(pad + text)
		} else {
			line.WriteString(text + pad)
		}
	}
	return line.String()
}
