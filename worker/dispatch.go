package worker

import (
	"context"

	"nixdaemon/protocol"
)

// handler answers one kind of request. Its error means that the request could
// not be read, and ends the connection; failed work is answered within.
type handler func(*conn, context.Context) error

// handlers are all requests that we answer: those of 2.34, and those that
// older clients still send.
var handlers = map[protocol.Op]handler{
	protocol.OpIsValidPath:                 (*conn).isValidPath,
	protocol.OpHasSubstitutes:              (*conn).hasSubstitutes,
	protocol.OpQueryPathHash:               (*conn).queryPathHash,
	protocol.OpQueryReferences:             (*conn).queryReferences,
	protocol.OpQueryReferrers:              (*conn).queryReferrers,
	protocol.OpAddToStore:                  (*conn).addToStore,
	protocol.OpAddTextToStore:              (*conn).addTextToStore,
	protocol.OpBuildPaths:                  (*conn).buildPaths,
	protocol.OpEnsurePath:                  (*conn).ensurePath,
	protocol.OpAddTempRoot:                 (*conn).addTempRoot,
	protocol.OpAddIndirectRoot:             (*conn).addIndirectRoot,
	protocol.OpSyncWithGC:                  (*conn).syncWithGC,
	protocol.OpFindRoots:                   (*conn).findRoots,
	protocol.OpExportPath:                  (*conn).exportPath,
	protocol.OpQueryDeriver:                (*conn).queryDeriver,
	protocol.OpSetOptions:                  (*conn).setOptions,
	protocol.OpCollectGarbage:              (*conn).collectGarbage,
	protocol.OpQuerySubstitutablePathInfo:  (*conn).querySubstitutablePathInfo,
	protocol.OpQueryDerivationOutputs:      (*conn).queryDerivationOutputs,
	protocol.OpQueryAllValidPaths:          (*conn).queryAllValidPaths,
	protocol.OpQueryFailedPaths:            (*conn).queryFailedPaths,
	protocol.OpClearFailedPaths:            (*conn).clearFailedPaths,
	protocol.OpQueryPathInfo:               (*conn).queryPathInfo,
	protocol.OpImportPaths:                 (*conn).importPaths,
	protocol.OpQueryDerivationOutputNames:  (*conn).queryDerivationOutputNames,
	protocol.OpQueryPathFromHashPart:       (*conn).queryPathFromHashPart,
	protocol.OpQuerySubstitutablePathInfos: (*conn).querySubstitutablePathInfos,
	protocol.OpQueryValidPaths:             (*conn).queryValidPaths,
	protocol.OpQuerySubstitutablePaths:     (*conn).querySubstitutablePaths,
	protocol.OpQueryValidDerivers:          (*conn).queryValidDerivers,
	protocol.OpOptimiseStore:               (*conn).optimiseStore,
	protocol.OpVerifyStore:                 (*conn).verifyStore,
	protocol.OpBuildDerivation:             (*conn).buildDerivation,
	protocol.OpAddSignatures:               (*conn).addSignatures,
	protocol.OpNarFromPath:                 (*conn).narFromPath,
	protocol.OpAddToStoreNar:               (*conn).addToStoreNar,
	protocol.OpQueryMissing:                (*conn).queryMissing,
	protocol.OpQueryDerivationOutputMap:    (*conn).queryDerivationOutputMap,
	protocol.OpRegisterDrvOutput:           (*conn).registerDrvOutput,
	protocol.OpQueryRealisation:            (*conn).queryRealisation,
	protocol.OpAddMultipleToStore:          (*conn).addMultipleToStore,
	protocol.OpAddBuildLog:                 (*conn).addBuildLog,
	protocol.OpBuildPathsWithResults:       (*conn).buildPathsWithResults,
	protocol.OpAddPermRoot:                 (*conn).addPermRoot,
}

// handler finds what answers a request of this client.
func (c *conn) handler(op protocol.Op) (handler, error) {
	if c.o.Nested != nil {
		return nestedHandler(op, c.o.Nested.Submits())
	}
	handle, known := handlers[op]
	if !known {
		return nil, errUnknownOp(op)
	}
	return handle, nil
}
