// Package ssh starts commands on other machines through the ssh program.
//
// A [Master] is one machine, as a store reference names it: the options that
// ssh is called with, the file with the machine's public key, and, where
// connections are shared, the ssh process that holds them. [Master.Start]
// starts a command there and gives a [Conn]: its standard input and output as
// one stream, whose Close ends the local process within bounded time. People's
// own ssh configuration, agents and jump hosts keep working, since nothing but
// their ssh speaks to the network.
//
// The host "localhost", without user or port, is this machine without ssh: the
// command is run directly. The command line is upstream's (libstore/ssh.cc).
//
// # Processes
//
// Each local process is a group of its own, so that helpers of ssh end with it.
// The goroutine that starts one stays on its thread until the process has been
// reaped, since the kernel ends the process with the thread that started it:
// none outlives us.
package ssh
