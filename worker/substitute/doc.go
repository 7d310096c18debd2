// Package substitute gets store paths from other stores instead of building them.
//
// A [Source] is such a store: a binary cache (a [Cache] over the [Objects] that its files are), a store of this
// machine, or one behind another daemon. The [Substituter] opens those that a session's settings name, once for
// everybody, and answers in their order of preference who has a path: an [Offer] is one store's word for it.
// Fetching an offer copies the path, as one stream from the store it comes from into ours.
//
// What several clients want at the same time is looked up, opened and fetched once; each of them is shown how it goes,
// and one that leaves does not stop it for the others.
//
// # Trust
//
// Whatever a store says is checked before it counts: the signatures of a path's metadata before anything is
// downloaded, hash, size and content address of what arrives before the path becomes valid. Only a store that the
// administrator has marked with the parameter "trusted" is believed without signatures.
package substitute
