package build

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
)

// builtinProgram is where an isolated builder finds the daemon's binary, when that is what is to be executed.
const builtinProgram = "/.nix-daemon"

// devShm is where builders find theirs.
const devShm = "/dev/shm"

// rootPlan is all that decides what is in the root of an isolated builder. It knows no settings and looks at no disk.
type rootPlan struct {
	storeDir, realStoreDir string
	inner, tmp             string // of the host: what appears as the store directory and as /tmp
	buildDir               string // as the builder sees it
	inputs                 []storepath.Path
	outputs                []storepath.Path    // own ones, which are never shown
	assembly               *sandbox.Assembly   // of inputs, mounted already; may be nil
	assembled              map[string]struct{} // what is in it, by name
	paths                  sandboxPaths
	uid, gid               uint32 // the builder's, inside
	manyIDs                bool   // it has a range of ids
	network                bool   // it may use the network
	shmSize                string // of /dev/shm; empty for none
	pts                    bool   // it has terminals
	builtin                string // program of the host that is to be executed
}

// entries lists the root's contents, what is above before what is below (linux-derivation-builder.cc, enterChroot).
func (r *rootPlan) entries() []sandbox.Entry {
	list := make([]sandbox.Entry, 0, len(r.inputs)-len(r.assembled)+len(r.paths)+24)
	list = r.addEtc(list)
	shm := sandbox.Entry{Kind: sandbox.EntryTmpfs, Target: devShm, Text: r.shmSize}
	// It would hide a store that is in it.
	shmFirst := isBelow(r.storeDir, devShm)
	if shmFirst && r.shmSize != "" {
		list = append(list, shm)
	}
	list = append(list,
		sandbox.Entry{Kind: sandbox.EntryBind, Target: "/tmp", Source: r.tmp, Fresh: true},
		sandbox.Entry{Kind: sandbox.EntryBind, Target: r.storeDir, Source: r.inner, Fresh: true, Assembly: r.assembly})
	userDev := r.shows("/dev") && r.paths["/dev"].source != ""
	if !userDev {
		list = r.addDev(list)
	}
	list = r.addPaths(list)
	list = append(list, sandbox.Entry{Kind: sandbox.EntryProc, Target: "/proc"})
	if r.manyIDs {
		list = append(list, sandbox.Entry{Kind: sandbox.EntrySys, Target: "/sys"})
	}
	if !shmFirst && r.shmSize != "" {
		list = append(list, shm)
	}
	// Whoever shows the host's /dev has shown its terminals.
	if r.pts && !userDev && !r.shows("/dev/pts") && !r.shows("/dev/ptmx") {
		list = append(list, sandbox.Entry{Kind: sandbox.EntryPts, Target: "/dev/pts"},
			sandbox.Entry{Kind: sandbox.EntryLink, Target: "/dev/ptmx", Text: "/dev/pts/ptmx"})
	}
	if r.builtin != "" {
		list = append(list, sandbox.Entry{Kind: sandbox.EntryBind, Target: builtinProgram, Source: r.builtin, ReadOnly: true})
	}
	return list
}

func (r *rootPlan) shows(target string) bool { _, ok := r.paths[target]; return ok }

func (r *rootPlan) addEtc(list []sandbox.Entry) []sandbox.Entry {
	etc := sandbox.Entry{Kind: sandbox.EntryDir, Target: "/etc", Mode: 0o555}
	if r.manyIDs {
		etc.Mode, etc.Own = 0o755, true
	}
	list = append(list, etc)
	file := func(name, text string) {
		list = append(list, sandbox.Entry{Kind: sandbox.EntryFile, Target: "/etc/" + name, Text: text, Mode: 0o644})
	}
	file("passwd", fmt.Sprintf("root:x:0:0:Nix build user:%[3]s:/noshell\n"+
		"nixbld:x:%[1]d:%[2]d:Nix build user:%[3]s:/noshell\n"+
		"nobody:x:65534:65534:Nobody:/:/noshell\n", r.uid, r.gid, r.buildDir))
	file("group", fmt.Sprintf("root:x:0:\nnixbld:!:%d:\nnogroup:x:65534:\n", r.gid))
	if r.network {
		// Only hosts and services, and those from files alone, as little as possible of the machine.
		file("nsswitch.conf", "hosts: files dns\nservices: files\n")
	} else {
		file("hosts", "127.0.0.1 localhost\n::1 localhost\n")
	}
	return list
}

func (r *rootPlan) addDev(list []sandbox.Entry) []sandbox.Entry {
	for _, link := range [...][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}} {
		list = append(list, sandbox.Entry{Kind: sandbox.EntryLink, Target: "/dev/" + link[0], Text: link[1]})
	}
	return list
}

// addPaths shows the inputs and what else is wanted. Nothing but what is wanted can lie above or below an input: it
// goes before those unless it is in the store.
func (r *rootPlan) addPaths(list []sandbox.Entry) []sandbox.Entry {
	hidden := make(map[string]struct{}, len(r.outputs))
	for _, p := range r.outputs {
		hidden[r.storeDir+"/"+p.Base()] = struct{}{}
	}
	var within []string
	targets := slices.SortedFunc(maps.Keys(r.paths), comparePaths)
	for _, target := range targets {
		if isBelow(target, r.storeDir) {
			within = append(within, target)
		} else {
			list = r.addPath(list, target)
		}
	}
	for _, p := range r.unassembled() {
		target := r.storeDir + "/" + p.Base()
		if _, own := hidden[target]; !own {
			list = append(list, sandbox.Entry{Kind: sandbox.EntryBind, Target: target, Source: r.realStoreDir + "/" + p.Base(), ReadOnly: true})
		}
	}
	for _, target := range within {
		_, own := hidden[target]
		name := strings.TrimPrefix(target, r.storeDir+"/")
		_, input := slices.BinarySearchFunc(r.inputs, name, func(p storepath.Path, name string) int { return cmp.Compare(p.Base(), name) })
		if !own && !input {
			list = r.addPath(list, target)
		}
	}
	return list
}

// unassembled are the inputs that are to be mounted yet. What is assembled are inputs, too.
func (r *rootPlan) unassembled() []storepath.Path {
	switch len(r.assembled) {
	case 0:
		return r.inputs
	case len(r.inputs):
		return nil
	}
	return slices.DeleteFunc(slices.Clone(r.inputs), func(p storepath.Path) bool {
		_, there := r.assembled[p.Base()]
		return there
	})
}

func (r *rootPlan) addPath(list []sandbox.Entry, target string) []sandbox.Entry {
	p := r.paths[target]
	// The builder's own procfs takes its place.
	if p.source == "/proc" {
		return list
	}
	return append(list, sandbox.Entry{Kind: sandbox.EntryBind, Target: target, Source: p.source, Optional: p.optional,
		ReadOnly: p.readOnly || isBelow(p.source, r.realStoreDir) || isBelow(p.source, r.storeDir)})
}

// comparePaths orders directories before what is in them.
func comparePaths(a, b string) int {
	return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}

// isBelow tells whether a clean path is in a directory, at any depth.
func isBelow(p, dir string) bool { return strings.HasPrefix(p, dir+"/") }

// rooted makes a path of a setting one of a root: there is nothing that it could be relative to.
func rooted(p string) string { return path.Clean("/" + p) }
