package db

import (
	"embed"
	"fmt"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

// statement names one file of the folder sql. The numbers index the tables of prepared statements.
type statement int

const (
	stmtBegin statement = iota
	stmtBeginRead
	stmtCommit
	stmtRollback
	stmtSavepoint
	stmtSavepointRelease
	stmtSavepointRollback
	stmtQueryID
	stmtQueryMaxID
	stmtCountPaths
	stmtQueryPath
	stmtQueryReferenceIDs
	stmtQueryName
	stmtQueryReferences
	stmtQueryReferrers
	stmtQueryDerivers
	stmtQueryOutputs
	stmtQueryHashPart
	stmtQueryDataVersion
	stmtQueryLastID
	stmtListPaths
	stmtListRowsBeyond
	stmtListNamesBetween
	stmtListNamesBeyond
	stmtListNodes
	stmtListDerivers
	stmtListEdges
	stmtListOutputs
	stmtListTables
	stmtListPathColumns
	stmtListMigrations
	stmtInsertMigration
	stmtInsertPath
	stmtInsertReference
	stmtInsertOutput
	stmtUpdatePath
	stmtUpdateSignatures
	stmtUpdateHash
	stmtDeleteReferences
	stmtDeletePath
	stmtDeleteReferencesOfAll
	stmtDeletePaths
	stmtQueryRealisationByHash
	stmtInsertRealisationByHash
	stmtUpdateRealisationByHash
	stmtQueryRealisationByPath
	stmtInsertRealisationByPath
	stmtUpdateRealisationByPath
	stmtReplaceRealisationByPath
	stmtDeleteReferencesOf
	stmtDeleteOutputsOf
	stmtDeleteRows
	stmtQueryAnyReferrer
	stmtQueryAnyRealisation
	stmtQuerySchemaVersion
	stmtListUnknownOwners
	stmtDeleteReferencesOfRun
	stmtDeleteOutputsOfRun
	stmtDeleteRun
	stmtQueryAnyReferrerOfRun
	stmtQueryAnyRealisationOfRun
	stmtCountRowsBeyond
	stmtCount
)

var statementFiles = [stmtCount]string{
	stmtBegin:                    "begin",
	stmtBeginRead:                "begin_read",
	stmtCommit:                   "commit",
	stmtRollback:                 "rollback",
	stmtSavepoint:                "savepoint",
	stmtSavepointRelease:         "savepoint_release",
	stmtSavepointRollback:        "savepoint_rollback",
	stmtQueryID:                  "query_id",
	stmtQueryMaxID:               "query_max_id",
	stmtCountPaths:               "count_paths",
	stmtQueryPath:                "query_path",
	stmtQueryReferenceIDs:        "query_reference_ids",
	stmtQueryName:                "query_name",
	stmtQueryReferences:          "query_references",
	stmtQueryReferrers:           "query_referrers",
	stmtQueryDerivers:            "query_derivers",
	stmtQueryOutputs:             "query_outputs",
	stmtQueryHashPart:            "query_hash_part",
	stmtQueryDataVersion:         "query_data_version",
	stmtQueryLastID:              "query_last_id",
	stmtListPaths:                "list_paths",
	stmtListRowsBeyond:           "list_rows_beyond",
	stmtListNamesBetween:         "list_names_between",
	stmtListNamesBeyond:          "list_names_beyond",
	stmtListNodes:                "list_nodes",
	stmtListDerivers:             "list_derivers",
	stmtListEdges:                "list_edges",
	stmtListOutputs:              "list_outputs",
	stmtListTables:               "list_tables",
	stmtListPathColumns:          "list_path_columns",
	stmtListMigrations:           "list_migrations",
	stmtInsertMigration:          "insert_migration",
	stmtInsertPath:               "insert_path",
	stmtInsertReference:          "insert_reference",
	stmtInsertOutput:             "insert_output",
	stmtUpdatePath:               "update_path",
	stmtUpdateSignatures:         "update_signatures",
	stmtUpdateHash:               "update_hash",
	stmtDeleteReferences:         "delete_references",
	stmtDeletePath:               "delete_path",
	stmtDeleteReferencesOfAll:    "delete_references_of_all",
	stmtDeletePaths:              "delete_paths",
	stmtQueryRealisationByHash:   "query_realisation_by_hash",
	stmtInsertRealisationByHash:  "insert_realisation_by_hash",
	stmtUpdateRealisationByHash:  "update_realisation_by_hash",
	stmtQueryRealisationByPath:   "query_realisation_by_path",
	stmtInsertRealisationByPath:  "insert_realisation_by_path",
	stmtUpdateRealisationByPath:  "update_realisation_by_path",
	stmtReplaceRealisationByPath: "replace_realisation_by_path",
	stmtDeleteReferencesOf:       "delete_references_of",
	stmtDeleteOutputsOf:          "delete_outputs_of",
	stmtDeleteRows:               "delete_rows",
	stmtQueryAnyReferrer:         "query_any_referrer",
	stmtQueryAnyRealisation:      "query_any_realisation",
	stmtQuerySchemaVersion:       "query_schema_version",
	stmtListUnknownOwners:        "list_unknown_owners",
	stmtDeleteReferencesOfRun:    "delete_references_of_run",
	stmtDeleteOutputsOfRun:       "delete_outputs_of_run",
	stmtDeleteRun:                "delete_run",
	stmtQueryAnyReferrerOfRun:    "query_any_referrer_of_run",
	stmtQueryAnyRealisationOfRun: "query_any_realisation_of_run",
	stmtCountRowsBeyond:          "count_rows_beyond",
}

// sqlText returns the text of a file of the folder sql. The files are part of the program, so a missing one panics.
func sqlText(name string) string {
	text, err := sqlFiles.ReadFile("sql/" + name + ".sql")
	if err != nil {
		panic(fmt.Sprintf("db: embedded statement %s: %v", name, err))
	}
	return string(text)
}
