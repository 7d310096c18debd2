//go:build !linux

package meter

func openFiles() (float64, bool) { return 0, false }

func residentMemory() (float64, bool) { return 0, false }
