package db

// SchemaVersion is the version of the database's schema that this package brings a database to.
const SchemaVersion = schemaVersion
