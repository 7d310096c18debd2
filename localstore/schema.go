package localstore

import "nixdaemon/localstore/internal/db"

// SchemaVersion is the version of the database's schema that a store is opened with, or brought to; upstream calls it
// nixSchemaVersion. Those that are newer are refused.
const SchemaVersion = db.SchemaVersion
