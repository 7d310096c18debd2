package view

import (
	"io"
	"strings"
)

// Screen shows pictures on a terminal, each in the place of the one before. Nothing of it is left when it is closed.
type Screen struct {
	w      io.Writer
	opened bool
}

// NewScreen takes a terminal.
func NewScreen(w io.Writer) *Screen { return &Screen{w: w} }

const (
	// A second screen, so that what was on the first comes back; no cursor; lines that are too long end at the edge.
	enter = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leave = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	// Terminals that know how show nothing of a picture before all of it is there.
	beginPicture, endPicture = "\x1b[?2026h", "\x1b[?2026l"
	home                     = "\x1b[H"
	clearLine, clearRest     = "\x1b[K", "\x1b[J"
)

// Show puts lines onto the terminal with one write. What stays the same is written over with itself, so nothing
// flickers.
func (s *Screen) Show(lines []string) error {
	var out strings.Builder
	if !s.opened {
		s.opened = true
		out.WriteString(enter)
	}
	out.WriteString(beginPicture + home)
	for i, line := range lines {
		if i > 0 {
			out.WriteString("\r\n")
		}
		out.WriteString(line + clearLine)
	}
	out.WriteString(clearRest + endPicture)
	_, err := io.WriteString(s.w, out.String())
	return err
}

// Close gives the terminal back as it was.
func (s *Screen) Close() error {
	if !s.opened {
		return nil
	}
	s.opened = false
	_, err := io.WriteString(s.w, leave)
	return err
}
