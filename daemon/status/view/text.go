package view

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// style is an escape sequence's number.
type style string

const (
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	normal       = "\x1b[0m"
)

// paint gives text a style, where there is colour.
func (p *painter) paint(s style, text string) string {
	if !p.o.Colour || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + normal
}

// clean makes one line of text that no terminal acts upon: escape sequences go as a whole, control and formatting
// characters are left out, tabs become blanks.
func clean(text string) string {
	const longest = 1 << 12
	var out strings.Builder
	for i := 0; i < len(text) && out.Len() < longest; {
		if text[i] == 0x1b {
			i += escape(text[i:])
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		i += n
		switch {
		case r == '\t' || r == '\n':
			out.WriteByte(' ')
		case r == utf8.RuneError && n == 1:
			out.WriteByte('?')
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r):
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// escape is the length of the escape sequence that a text begins with (ECMA-48): control sequences end with a letter or
// alike, strings with a bell or a string terminator, others after one character.
func escape(text string) int {
	if len(text) < 2 {
		return len(text)
	}
	switch text[1] {
	case '[':
		for i := 2; i < len(text); i++ {
			if c := text[i]; c < 0x20 || c > 0x3f {
				if c >= 0x40 && c <= 0x7e {
					i++
				}
				return i
			}
		}
		return len(text)
	case ']', 'P', '_', '^', 'X':
		for i := 2; i < len(text); i++ {
			if text[i] == 7 {
				return i + 1
			}
			if text[i] == 0x1b {
				return min(i+2, len(text))
			}
		}
		return len(text)
	}
	return 2
}

// width is how many columns a text takes on a terminal, escape sequences aside.
func width(text string) int {
	n := 0
	for i := 0; i < len(text); {
		if text[i] == 0x1b {
			i += escape(text[i:])
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		i += size
		n += columns(r)
	}
	return n
}

// columns is 2 for the characters of East Asia and pictures, 0 for those that are set above others.
func columns(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 || r >= 0xf900 && r <= 0xfaff ||
		r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 || r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd):
		return 2
	}
	return 1
}

// shorten cuts a text to so many columns; what is cut shows as dots.
func shorten(text string, most int) string {
	if most < 0 || width(text) <= most {
		return text
	}
	dots := strings.Repeat(".", min(2, most))
	room := most - len(dots)
	var out strings.Builder
	styled := false
	for i := 0; i < len(text); {
		if text[i] == 0x1b {
			n := escape(text[i:])
			out.WriteString(text[i : i+n])
			styled = true
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if room -= columns(r); room < 0 {
			break
		}
		out.WriteString(text[i : i+n])
		i += n
	}
	out.WriteString(dots)
	if styled {
		out.WriteString(normal)
	}
	return out.String()
}

// cut shortens a line to the terminal.
func (p *painter) cut(line string) string {
	if p.o.Width <= 0 {
		return line
	}
	return shorten(line, p.o.Width)
}

// spread puts one text to the left, the other to the right if there is room.
func spread(left, right string, total int) string {
	gap := total - width(left) - width(right)
	if gap < 2 {
		if total <= 0 {
			return left + "  " + right
		}
		return left
	}
	return left + strings.Repeat(" ", gap) + right
}

// clock is a short duration as a stopwatch shows it.
func clock(d time.Duration) string {
	s := max(0, int64(d/time.Second))
	if s < 3600 {
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// age is a duration in the two largest units that matter.
func age(d time.Duration) string {
	s := max(0, int64(d/time.Second))
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min", s/60)
	case s < 86400:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
}

// size is a number of bytes.
func size(n uint64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	for f >= 999.5 && unit < 4 {
		f /= 1024
		unit++
	}
	format := "%.0f %ciB"
	if f < 9.95 {
		format = "%.1f %ciB"
	}
	return fmt.Sprintf(format, f, "KMGTP"[unit])
}

// optional is a size, nothing for 0.
func optional(n uint64) string {
	if n == 0 {
		return ""
	}
	return size(n)
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// people are those whom something is for.
func people(users []string, others int) string {
	var names []string
	for _, u := range users {
		names = append(names, clean(u))
	}
	if others > 0 {
		names = append(names, plural(others, "other"))
	}
	return strings.Join(names, ", ")
}

// bar shows a part of a whole.
func bar(done, whole uint64) string {
	const cells = 16
	share := 1.0
	if whole > 0 {
		share = min(1, float64(done)/float64(whole))
	}
	full := int(share * cells)
	return fmt.Sprintf("[%s%s] %3.0f%%", strings.Repeat("#", full), strings.Repeat("-", cells-full), 100*share)
}
