package darwinprofile

// What the rules below name are facts of macOS, and what upstream found that builds need
// (libstore/unix/build/sandbox-*.sb): less breaks builds that people have, more lets builds depend on their machine.

// noSetID keeps a builder from leaving behind a program that runs as its user.
func (p *profile) noSetID() {
	p.section("No program that runs as whoever made it.")
	p.deny("file-write-setugid")
}

func (p *profile) process() {
	p.section("Processes of its own, and how they talk to each other.")
	p.always("process-fork")
	p.always("signal (target same-sandbox)")
	p.always("ipc-posix*")
	p.always("ipc-sysv*")
	p.always("system-socket")

	p.section("Facts about the machine and its users.")
	p.always("sysctl-read")
	p.allow("mach-lookup", globalName("com.apple.system.opendirectoryd.libinfo"))
}

// directories opens what is the builder's own. Sockets in the file system are allowed nowhere else: behind one of the
// host's would be a process outside of the sandbox.
func (p *profile) directories() {
	p.section("Where it works. The network is that of sockets in these directories.")
	p.allow("file* process-exec network-outbound network-inbound",
		literal("/tmp"),
		"(subpath TMPDIR)",
		filter("(subpath (param "+quote(paramBuildDir)+"))"))
}

func (p *profile) system() {
	p.section("Devices and terminals.")
	p.allow("file*", literals("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom",
		"/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/tty", "/dev/ptmx", "/dev/dtracehelper")...)
	p.allow("file*", subpath("/dev/fd"), `(regex #"^/dev/pty[a-z]+")`, `(regex #"^/dev/ttys[0-9]+")`)

	p.section("The shell that /bin/sh becomes.")
	p.allow("file*", literal("/private/var/select/sh"))

	p.section("The system's version, time zones, languages.")
	p.allow("file-read*", literals(
		"/System/Library/CoreServices/SystemVersion.plist",
		"/System/Library/CoreServices/SystemVersionCompat.plist")...)
	p.allow("file-read*", subpaths("/usr/share/zoneinfo", "/usr/share/locale")...)

	p.section("Rosetta, for programs of the other architecture.")
	p.allow("file-read*", subpaths(
		"/Library/Apple/usr/libexec/oah",
		"/System/Library/Apple/usr/libexec/oah",
		"/Library/Apple/System/Library/LaunchDaemons/com.apple.oahd.plist",
		"/System/Library/LaunchDaemons/com.apple.oahd.plist")...)

	p.section("That these exist.")
	p.allow("file-read-metadata", literals("/dev", "/etc", "/var", "/private/var/tmp")...)
}

func (p *profile) network() {
	p.section("The network.")
	p.allow("network*", "(local ip)", "(remote ip)")
	p.allow("mach-lookup",
		globalName("com.apple.SystemConfiguration.DNSConfiguration"),
		globalName("com.apple.trustd"), globalName("com.apple.trustd.agent"))
}

func (p *profile) localNetwork() {
	p.section("The network within this machine.")
	p.allow("network*", `(remote ip "localhost:*")`)
	p.allow("network-inbound", `(local ip "*:*")`)
	p.allow("file-read-metadata", literal("/etc/hosts"))
	p.allow("file-read*", literal("/private/etc/hosts"))
}

// names allows name resolution, which even "localhost" needs.
func (p *profile) names() {
	p.section("Names of machines.")
	p.allow("file-read-metadata", literals("/etc", "/etc/resolv.conf", "/private/etc/resolv.conf", "/var")...)
	p.allow("file-read*", literal("/private/var/run/resolv.conf"))
	p.allow("network-outbound", `(remote unix-socket (path-literal "/private/var/run/mDNSResponder"))`)
}

// globalName is a service of the system.
func globalName(service string) filter { return filter("(global-name " + quote(service) + ")") }
