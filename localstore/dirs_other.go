//go:build !linux

package localstore

func (o *Options) makeWritable() error { return nil }
