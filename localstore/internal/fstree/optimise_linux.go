package fstree

const canLinkSymlinks = true

func excludedFromLinking(func() string) bool { return false }
