package njson

import "fmt"

// TypeError says that a value is not of the wanted kind, in the words of
// upstream's accessors (libutil/json-utils.cc).
func TypeError(v Value, want Kind) error {
	return fmt.Errorf("Expected JSON value to be of type '%s' but it is of type '%s': %s",
		Value{kind: want}.TypeName(), v.TypeName(), v)
}
