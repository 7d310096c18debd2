package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"nixdaemon/worker/settings"
)

// flag is one option of the command line, under one of its names.
type flag struct {
	args    int // words that follow it
	feature settings.Feature
	apply   func(args []string) error
}

// commonFlags are those of every command of upstream's older interface, without the settings. Keys are the long
// names, or single letters.
func (l *loader) commonFlags() map[string]flag {
	s := l.cfg.Settings
	flags := map[string]flag{
		"verbose":         do(func() { s.Verbosity = min(s.Verbosity+1, settings.LevelVomit) }),
		"quiet":           do(func() { s.Verbosity -= min(s.Verbosity, 1) }),
		"debug":           do(func() { s.Verbosity = settings.LevelDebug }),
		"no-build-output": do(func() { l.cfg.LogFormat = "raw" }),
		"keep-failed":     do(func() { s.KeepFailed = true }),
		"keep-going":      do(func() { s.KeepGoing = true }),
		"fallback":        do(func() { s.Fallback = true }),
		"readonly-mode":   do(func() { s.ReadOnlyMode = true }),
		"no-gc-warning":   do(func() {}),
		"option":          {args: 2, apply: l.option},
		"log-format":      {args: 1, apply: l.logFormat},
		"store":           {args: 1, apply: l.store},
		"cores":           l.integer("cores"),
		"max-silent-time": l.integer("max-silent-time"),
		"timeout":         l.integer("timeout"),
		"j":               {args: 1, apply: func(a []string) error { return s.SetWarn("max-jobs", a[0], l.warn) }},
	}
	for letter, name := range map[string]string{"v": "verbose", "Q": "no-build-output", "K": "keep-failed", "k": "keep-going"} {
		flags[letter] = flags[name]
	}
	return flags
}

func do(f func()) flag {
	return flag{apply: func([]string) error { f(); return nil }}
}

// settingFlags are --name value, --extra-name value, --name and --no-name for every setting.
func (l *loader) settingFlags() map[string]flag {
	flags := map[string]flag{}
	for info := range l.cfg.Settings.Infos() {
		last := ""
		add := func(name string, f flag) {
			f.feature = info.Feature
			flags[name], last = f, name
		}
		switch info.Kind {
		case settings.KindFlag:
			add(info.Name, l.override(info.Name, "true"))
			add("no-"+info.Name, l.override(info.Name, "false"))
		case settings.KindMode:
			add(info.Name, l.override(info.Name, "true"))
			add("no-"+info.Name, l.override(info.Name, "false"))
			add("relaxed-"+info.Name, l.override(info.Name, "relaxed"))
		default:
			add(info.Name, l.value(info.Name))
			if info.Appendable {
				add("extra-"+info.Name, l.value("extra-"+info.Name))
			}
		}
		// Upstream gives all flags of a setting the same aliases, of which the last flag's remain: --build-fallback
		// means --no-fallback, and --binary-caches appends.
		for _, alias := range info.Aliases {
			flags[alias] = flags[last]
		}
	}
	return flags
}

func (l *loader) override(name, value string) flag {
	return flag{apply: func([]string) error { return l.cfg.Settings.Override(name, value) }}
}

func (l *loader) value(name string) flag {
	return flag{args: 1, apply: func(a []string) error { return l.cfg.Settings.SetWarn(name, a[0], l.warn) }}
}

func (l *loader) integer(name string) flag {
	return flag{args: 1, apply: func(a []string) error {
		n, err := settings.ParseInteger(a[0], 64)
		if err != nil {
			return err
		}
		return l.cfg.Settings.SetWarn(name, strconv.FormatUint(n, 10), l.warn)
	}}
}

// option sets a setting; what is wrong with its value is only a warning.
func (l *loader) option(args []string) error {
	err := l.set(args[0], args[1])
	if _, ok := err.(*settings.UsageError); ok {
		l.warn(err.Error())
		return nil
	}
	return err
}

func (l *loader) logFormat(args []string) error {
	if !slices.Contains([]string{"raw", "raw-with-logs", "internal-json", "bar", "bar-with-logs"}, args[0]) {
		return fmt.Errorf("option 'log-format' has an invalid value '%s'", args[0])
	}
	l.cfg.LogFormat = args[0]
	return nil
}

func (l *loader) store(args []string) error {
	ref, err := settings.ParseStoreReference(args[0])
	if err == nil {
		l.cfg.Settings.Store = ref.String()
	}
	return err
}

// daemonFlag applies one of the daemon's own flags, and says whether arg is one.
func (l *loader) daemonFlag(arg string) (known bool, err error) {
	trust := func(t Trust) error {
		l.cfg.Trust = t
		return l.cfg.Settings.ExperimentalFeatures.Require(settings.DaemonTrustOverride)
	}
	switch arg {
	case "--daemon":
	case "--help":
		l.cfg.Mode, err = ModeHelp, errStop
	case "--version":
		l.cfg.Mode, err = ModeVersion, errStop
	case "--stdio":
		l.cfg.Mode = ModeStdio
	case "--force-trusted":
		err = trust(TrustAll)
	case "--force-untrusted":
		err = trust(TrustNone)
	case "--default-trust":
		err = trust(TrustByPeer)
	case "--process-ops":
		l.cfg.ProcessOps = true
		err = l.cfg.Settings.ExperimentalFeatures.Require(settings.MountedSSHStore)
	default:
		return false, nil
	}
	return true, err
}

// commandLine applies the flags in order, then warns about unknown settings and asks for the features of the flags.
func (l *loader) commandLine() error {
	flags := l.settingFlags()
	maps.Copy(flags, l.commonFlags())
	p := parser{loader: l, flags: flags}
	if len(l.in.Args) > 1 {
		p.rest = slices.Clone(l.in.Args[1:])
	}
	for len(p.rest) > 0 {
		if err := p.next(); err != nil {
			return err
		}
	}
	l.warnUnknown()
	if l.cfg.Command == storeCommand && l.cfg.Mode != ModeServe {
		return &settings.UsageError{Msg: "no operation specified"}
	}
	for _, f := range p.features {
		if err := l.cfg.Settings.ExperimentalFeatures.Require(f); err != nil {
			return err
		}
	}
	return nil
}

// parser walks over the words of a command line.
type parser struct {
	*loader
	flags    map[string]flag
	rest     []string
	plain    bool // after --: no word is a flag of ours, but the daemon's own are still known
	features []settings.Feature
}

func (p *parser) next() error {
	if !p.plain {
		p.expand()
	}
	arg := p.rest[0]
	p.rest = p.rest[1:]
	switch {
	case !p.plain && arg == "--":
		p.plain = true
		return nil
	case p.plain || arg == "" || arg[0] != '-':
		return p.daemonWord(arg, "unexpected argument '%s'")
	}
	f, ok := p.lookup(arg)
	if !ok {
		return p.daemonWord(arg, "unrecognised flag '%s'")
	}
	return p.flag(arg, f)
}

func (p *parser) daemonWord(arg, refusal string) error {
	ownFlag := p.daemonFlag
	if p.cfg.Command == storeCommand {
		ownFlag = p.storeFlag
	}
	known, err := ownFlag(arg)
	if !known {
		return &settings.UsageError{Msg: fmt.Sprintf(refusal, arg)}
	}
	return err
}

// expand splits -kK into -k -K, and -j4 into -j 4.
func (p *parser) expand() {
	arg := p.rest[0]
	if len(arg) <= 2 || arg[0] != '-' || !isLetter(arg[1]) {
		return
	}
	words := []string{arg[:2]}
	for j := 2; j < len(arg); j++ {
		if !isLetter(arg[j]) {
			words = append(words, arg[j:])
			break
		}
		words = append(words, "-"+arg[j:j+1])
	}
	p.rest = slices.Concat(words, p.rest[1:])
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func (p *parser) lookup(arg string) (flag, bool) {
	name := arg[1:]
	if len(arg) > 3 && arg[1] == '-' {
		name = arg[2:]
	} else if len(arg) != 2 {
		return flag{}, false
	}
	f, ok := p.flags[name]
	return f, ok
}

func (p *parser) flag(arg string, f flag) error {
	if f.feature != settings.NoFeature {
		p.features = append(p.features, f.feature)
	}
	if len(p.rest) < f.args {
		return &settings.UsageError{Msg: fmt.Sprintf("flag '%s' requires %d argument(s), but only %d were given",
			arg, f.args, len(p.rest))}
	}
	args := p.rest[:f.args]
	p.rest = p.rest[f.args:]
	return f.apply(args)
}
