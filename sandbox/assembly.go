package sandbox

// Assembly is a directory of the host with others, or files, mounted read-only on what is in it, put together once for
// one builder after another. No builder ever enters it: each gets a copy of all mounts at once, which costs the kernel a
// fraction of making them ([Entry.Assembly]). It lives until it is closed, or until the daemon ends.
//
// It follows the directory: whoever deletes there what something is mounted on takes the mount away, too.
type Assembly struct {
	// mounts is the descriptor of a mount namespace that has the directory as its root.
	mounts int
}

// Bind is one thing in an [Assembly].
type Bind struct {
	// Name is where it appears: one component, below the directory.
	Name string
	// Source is an absolute path of the host; what is mounted below it appears, too.
	Source string
	// File says that Source is no directory. It is no symbolic link either.
	File bool
}
