// Command report reads what "go test -json" prints and tells it so that a person finds
// at the end, in one place, which tests failed and what they had said.
//
// A test is named by its package and its whole name, subtests with their
// parents'. A skip, a failure and what took long are a line each. What a test has printed is
// kept while it runs, let go of when it passes, and told at the end of all
// when it failed, or had not ended when its package did. Only the innermost
// tests that failed are told: those around them failed because of them.
//
// The status is 0 when every package passed and 1 otherwise.
package main

import (
	"fmt"
	"os"
)

func main() {
	passed, err := tell(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}
