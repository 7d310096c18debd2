// Package njson reads and writes JSON with the bytes that upstream's JSON
// library gives: object members sorted by name, no white space, its spelling
// of numbers and its choice of escapes. Those bytes are hashed and signed, so
// encoding/json, which differs in all four, cannot stand in.
//
// A [Value] is one JSON value; [Parse] reads it and [Value.Append] writes it.
package njson

import (
	"cmp"
	"slices"
	"strings"
)

// Kind is the type of a value.
type Kind uint8

// The kinds. Numbers keep the distinction that upstream's library makes.
const (
	Null Kind = iota
	Bool
	// Signed is a negative whole number that fits 64 bits.
	Signed
	// Unsigned is a whole number of at least zero that fits 64 bits.
	Unsigned
	Float
	String
	Array
	Object
)

// Value is one JSON value. The zero Value is null. Values are immutable once
// parsed and may share parts.
type Value struct {
	kind Kind
	// num is the number's bits, or 1 for true.
	num  uint64
	node *node
}

// node holds what does not fit a machine word, so that a long array of small
// numbers stays small.
type node struct {
	text    string
	items   []Value
	members []Member
}

// Member is one entry of an object.
type Member struct {
	Name  string
	Value Value
}

// Kind tells the value's type.
func (v Value) Kind() Kind { return v.kind }

// TypeName is the type's name as upstream's messages have it.
func (v Value) TypeName() string {
	switch v.kind {
	case Null:
		return "null"
	case Bool:
		return "boolean"
	case String:
		return "string"
	case Array:
		return "array"
	case Object:
		return "object"
	}
	return "number"
}

// Of makes a string value.
func Of(s string) Value { return Value{kind: String, node: &node{text: s}} }

// OfUint makes a number.
func OfUint(n uint64) Value { return Value{kind: Unsigned, num: n} }

// OfBool makes a truth value.
func OfBool(b bool) Value {
	if b {
		return Value{kind: Bool, num: 1}
	}
	return Value{kind: Bool}
}

// OfArray makes an array; it keeps the slice.
func OfArray(items []Value) Value { return Value{kind: Array, node: &node{items: items}} }

// OfStrings makes an array of strings.
func OfStrings(texts []string) Value {
	items := make([]Value, len(texts))
	for i, s := range texts {
		items[i] = Of(s)
	}
	return OfArray(items)
}

// OfObject makes an object; it keeps and sorts the slice. Of members with the
// same name the last counts.
func OfObject(members []Member) Value {
	slices.SortStableFunc(members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	kept := members[:0]
	for i, m := range members {
		if i+1 < len(members) && members[i+1].Name == m.Name {
			continue
		}
		kept = append(kept, m)
	}
	return Value{kind: Object, node: &node{members: kept}}
}

// Str is the text of a string, "" for other kinds.
func (v Value) Str() string {
	if v.kind != String {
		return ""
	}
	return v.node.text
}

// IsTrue tells whether this is true.
func (v Value) IsTrue() bool { return v.kind == Bool && v.num == 1 }

// Uint is the number of an Unsigned, 0 for other kinds.
func (v Value) Uint() uint64 {
	if v.kind != Unsigned {
		return 0
	}
	return v.num
}

// Items are an array's items, nil for other kinds.
func (v Value) Items() []Value {
	if v.kind != Array {
		return nil
	}
	return v.node.items
}

// Members are an object's members sorted by name, nil for other kinds.
func (v Value) Members() []Member {
	if v.kind != Object {
		return nil
	}
	return v.node.members
}

// Get looks a member of an object up.
func (v Value) Get(name string) (Value, bool) {
	members := v.Members()
	i, found := slices.BinarySearchFunc(members, name, func(m Member, name string) int {
		return strings.Compare(m.Name, name)
	})
	if !found {
		return Value{}, false
	}
	return members[i].Value, true
}

// With gives an object with one member added or replaced; v is unchanged.
func (v Value) With(name string, value Value) Value {
	members := append(slices.Clip(slices.Clone(v.Members())), Member{name, value})
	return OfObject(members)
}
