//go:build !linux

package fstree

const noAccessTime = 0
