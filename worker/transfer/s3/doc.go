// Package s3 reaches binary caches in buckets of S3 and of services like it, and the objects that builtin:fetchurl
// names by s3:// URLs.
//
// A [Location] is what an s3:// URL says; [Location.HTTPS] is where that is on the web. A [Store] is the
// [transfer.Objects] of one cache. [Keys] sign requests; a [Chain] finds them as the AWS tools do: environment, SSO, the
// files of profiles, web identity, container, instance. Without keys requests go unsigned, which reads public buckets.
//
// # Why not the whole SDK
//
// Requests are those of [transfer.Engine], signed by the SDK's SigV4 signer: one pool of connections, one rule for
// further attempts, one set of error texts and progress for all caches, as upstream has since 2.33. Of the SDK comes
// what is laborious and secret: the credential chain and the signature. Its S3 client would bring an HTTP stack and
// retry policy of its own, and a thousand types for the six requests that are made here.
//
// Parameters, defaults and texts are upstream 2.34.8's (libstore/s3-url.cc, s3-binary-cache-store.cc, aws-creds.cc).
package s3
