package build

import (
	"strconv"
	"syscall"

	"nixdaemon/sandbox"
)

func itoa(n int) string { return strconv.Itoa(n) }

// statusText says how a builder ended, in the words of upstream's statusToString.
func statusText(r sandbox.Result) string {
	if r.Signal == 0 {
		return "failed with exit code " + itoa(r.ExitCode)
	}
	return "failed due to signal " + itoa(int(r.Signal)) + " (" + signalText(r.Signal) + ")"
}

// signalText is the C library's description of a signal, which upstream prints.
func signalText(s syscall.Signal) string {
	switch s {
	case syscall.SIGHUP:
		return "Hangup"
	case syscall.SIGINT:
		return "Interrupt"
	case syscall.SIGQUIT:
		return "Quit"
	case syscall.SIGILL:
		return "Illegal instruction"
	case syscall.SIGTRAP:
		return "Trace/breakpoint trap"
	case syscall.SIGABRT:
		return "Aborted"
	case syscall.SIGBUS:
		return "Bus error"
	case syscall.SIGFPE:
		return "Floating point exception"
	case syscall.SIGKILL:
		return "Killed"
	case syscall.SIGUSR1:
		return "User defined signal 1"
	case syscall.SIGSEGV:
		return "Segmentation fault"
	case syscall.SIGUSR2:
		return "User defined signal 2"
	case syscall.SIGPIPE:
		return "Broken pipe"
	case syscall.SIGALRM:
		return "Alarm clock"
	case syscall.SIGTERM:
		return "Terminated"
	case syscall.SIGXCPU:
		return "CPU time limit exceeded"
	case syscall.SIGXFSZ:
		return "File size limit exceeded"
	case syscall.SIGVTALRM:
		return "Virtual timer expired"
	case syscall.SIGPROF:
		return "Profiling timer expired"
	case syscall.SIGSYS:
		return "Bad system call"
	}
	return "Unknown signal " + itoa(int(s))
}

func (f *RemoteFailure) status() string {
	return statusText(sandbox.Result{ExitCode: f.ExitCode, Signal: f.Signal})
}
