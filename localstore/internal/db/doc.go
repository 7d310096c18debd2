// Package db is the store's SQLite database: which paths are valid, what they refer to, and who derived them.
//
// A [DB] is one open database directory. Reads are methods of DB and run on a small pool of connections;
// changes are functions handed to [DB.Write], which receive a [Tx]. One goroutine at a time has the writing connection,
// that of a caller who finds it idle or one that belongs to the database:
// it runs the functions that wait, each shielded from the failure of the others, in one SQLite transaction,
// and every caller returns when that transaction is committed.
// Paths are plain strings here (full store paths, as in the tables); the package knows no syntax of theirs.
//
// # Compatibility
//
// The directory is upstream's, schema 10 (libstore/schema.sql, ca-specific-schema.sql, local-store.cc),
// and may be in use by upstream's processes at the same time.
// A new database is the one that 2.34 creates. A database that 2.35 has opened lacks the index IndexReferrer;
// it is left so. With Options.WantCA the tables of both generations of realisations exist side by side:
// those of 2.34 and older keyed by derivation hash, that of 2.35 keyed by derivation path.
// Neither release looks at the other's tables, and each finds its own row in SchemaMigrations.
//
// NULL stands for an absent deriver, size 0, ultimate false, no signatures and an absent content address.
//
// # Locks
//
// The file big-lock is locked shared as long as the database is open, exclusively while an older schema is upgraded.
// A new database is created under the shared lock, since an upstream process that created it at the same time
// would keep its own shared lock for good; creation is a single transaction that changes nothing when repeated.
//
// # Foreign changes
//
// [DB.Generation] changes when another process has committed, [DB.Stale] tells that the files have been
// replaced or deleted. Both are cheap enough to ask on every request.
package db
