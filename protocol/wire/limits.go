package wire

// Default limits. Upstream has none for ordinary strings and lists; these are far above what its clients send,
// and low enough that one field cannot take the machine's memory.
// A request as a whole is bounded by [Reader.SetBudget].
const (
	// MaxPath bounds a store path or file name sent as a string: Linux's PATH_MAX.
	MaxPath = 4096

	// MaxShortString bounds names, settings, signatures, hashes, content addresses and log texts.
	MaxShortString = 1 << 20

	// MaxString bounds strings whose length users control: environment values and arguments of a derivation,
	// the text given to AddTextToStore, error messages. The largest derivations seen in practice are a few MiB.
	MaxString = 64 << 20

	// MaxCount bounds the number of elements of a list. Large systems query some 10^5 paths in one request.
	MaxCount = 4 << 20

	// MaxRequest is a budget for one whole request without its streamed part; see [Reader.SetBudget].
	MaxRequest = 256 << 20
)
