//go:build !linux

package supervisor

// monotonic is 0: there is no service manager that asks for it.
func monotonic() int64 { return 0 }
