package fstree

const canLinkSymlinks = true

func excludedFromLinking(string) bool { return false }
