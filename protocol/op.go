package protocol

// Op is the number of a request. The space is sparse: 2 and 15 were never
// requests, 17 was ImportPath, and none of them may be given a new meaning; 48
// to 50 are reserved by upstream.
type Op uint64

// The requests (libstore/worker-protocol.hh, WorkerProto::Op), with their
// fields, "→" their reply after the "last" frame. A path is a store path, an
// info the metadata of a path. Minor versions in parentheses say since when a
// field or the request exists.
const (
	// OpIsValidPath: path → bool.
	OpIsValidPath Op = 1
	// OpHasSubstitutes: path → bool. Gone from upstream in 2.34.
	OpHasSubstitutes Op = 3
	// OpQueryPathHash: path → base16 sha256. Gone from upstream in 2.34.
	OpQueryPathHash Op = 4
	// OpQueryReferences: path → paths. Gone from upstream in 2.34.
	OpQueryReferences Op = 5
	// OpQueryReferrers: path → paths, none for an invalid path.
	OpQueryReferrers Op = 6
	// OpAddToStore: name, method and algorithm, references, repair, framed
	// data (25) → info; before: see AddToStoreRequest → path.
	OpAddToStore Op = 7
	// OpAddTextToStore: name, text, references → path. Obsolete since 25.
	OpAddTextToStore Op = 8
	// OpBuildPaths: derived paths, build mode → 1.
	OpBuildPaths Op = 9
	// OpEnsurePath: path → 1.
	OpEnsurePath Op = 10
	// OpAddTempRoot: path → 1. The path need not be valid.
	OpAddTempRoot Op = 11
	// OpAddIndirectRoot: file name → 1.
	OpAddIndirectRoot Op = 12
	// OpSyncWithGC: nothing → 1. A no-op since 2.4.
	OpSyncWithGC Op = 13
	// OpFindRoots: nothing → count, then link and target of each.
	OpFindRoots Op = 14
	// OpExportPath: path, ignored → data in "write" frames, then 1. Gone from
	// upstream in 2.32.
	OpExportPath Op = 16
	// OpQueryDeriver: path → path or none.
	OpQueryDeriver Op = 18
	// OpSetOptions: see ClientOptions → nothing.
	OpSetOptions Op = 19
	// OpCollectGarbage: see GCRequest → see GCResults.
	OpCollectGarbage Op = 20
	// OpQuerySubstitutablePathInfo: path → 0, or 1 and a SubstitutableInfo.
	OpQuerySubstitutablePathInfo Op = 21
	// OpQueryDerivationOutputs: derivation → paths.
	OpQueryDerivationOutputs Op = 22
	// OpQueryAllValidPaths: nothing → paths.
	OpQueryAllValidPaths Op = 23
	// OpQueryFailedPaths: nothing → strings. Gone from upstream in 2.18.
	OpQueryFailedPaths Op = 24
	// OpClearFailedPaths: strings → 1. Gone from upstream in 2.18.
	OpClearFailedPaths Op = 25
	// OpQueryPathInfo: path → bool, then the info without its path if true.
	OpQueryPathInfo Op = 26
	// OpImportPaths: data in answer to "read" frames → paths. Gone from
	// upstream in 2.32.
	OpImportPaths Op = 27
	// OpQueryDerivationOutputNames: derivation → strings.
	OpQueryDerivationOutputNames Op = 28
	// OpQueryPathFromHashPart: hash part → path or none.
	OpQueryPathFromHashPart Op = 29
	// OpQuerySubstitutablePathInfos: paths, with content addresses (22) →
	// count, then a path and a SubstitutableInfo each.
	OpQuerySubstitutablePathInfos Op = 30
	// OpQueryValidPaths: paths, bool substitute (27) → paths.
	OpQueryValidPaths Op = 31
	// OpQuerySubstitutablePaths: paths → paths.
	OpQuerySubstitutablePaths Op = 32
	// OpQueryValidDerivers: path → paths.
	OpQueryValidDerivers Op = 33
	// OpOptimiseStore: nothing → 1.
	OpOptimiseStore Op = 34
	// OpVerifyStore: bool check contents, bool repair → bool errors.
	OpVerifyStore Op = 35
	// OpBuildDerivation: path, BasicDerivation, build mode → BuildResult.
	OpBuildDerivation Op = 36
	// OpAddSignatures: path, signatures → 1.
	OpAddSignatures Op = 37
	// OpNarFromPath: path → a NAR, raw.
	OpNarFromPath Op = 38
	// OpAddToStoreNar: see AddToStoreNarRequest, then a NAR: framed (23), in
	// answer to "read" frames (21), or raw → nothing.
	OpAddToStoreNar Op = 39
	// OpQueryMissing: derived paths → see Missing. Since 19.
	OpQueryMissing Op = 40
	// OpQueryDerivationOutputMap: derivation → map of names to optional paths.
	// Since 22.
	OpQueryDerivationOutputMap Op = 41
	// OpRegisterDrvOutput: see Reader.RegisterRealisation → nothing. Since 27.
	OpRegisterDrvOutput Op = 42
	// OpQueryRealisation: DrvOutput → see Writer.FoundRealisation. Since 27.
	OpQueryRealisation Op = 43
	// OpAddMultipleToStore: bool repair, bool don't check signatures, framed:
	// count, then an info and a NAR each → nothing. Since 32.
	OpAddMultipleToStore Op = 44
	// OpAddBuildLog: base name of a derivation, framed log → 1. Since 32, in
	// daemons from 2.6 on.
	OpAddBuildLog Op = 45
	// OpBuildPathsWithResults: derived paths, build mode → KeyedBuildResults.
	// Since 34.
	OpBuildPathsWithResults Op = 46
	// OpAddPermRoot: path, file name → file name. Since 36.
	OpAddPermRoot Op = 47
	// OpSubmitOutput: single derived path, output name → 1. Only inside a
	// build, {submit-output}.
	OpSubmitOutput Op = 1000
	// OpAddToStoreScanning: name, method and algorithm, framed data → info.
	// Only inside a build, {add-to-store-scanning}.
	OpAddToStoreScanning Op = 1001
)

var opNames = map[Op]string{
	OpIsValidPath: "IsValidPath", OpHasSubstitutes: "HasSubstitutes", OpQueryPathHash: "QueryPathHash",
	OpQueryReferences: "QueryReferences", OpQueryReferrers: "QueryReferrers", OpAddToStore: "AddToStore",
	OpAddTextToStore: "AddTextToStore", OpBuildPaths: "BuildPaths", OpEnsurePath: "EnsurePath",
	OpAddTempRoot: "AddTempRoot", OpAddIndirectRoot: "AddIndirectRoot", OpSyncWithGC: "SyncWithGC",
	OpFindRoots: "FindRoots", OpExportPath: "ExportPath", OpQueryDeriver: "QueryDeriver",
	OpSetOptions: "SetOptions", OpCollectGarbage: "CollectGarbage",
	OpQuerySubstitutablePathInfo: "QuerySubstitutablePathInfo", OpQueryDerivationOutputs: "QueryDerivationOutputs",
	OpQueryAllValidPaths: "QueryAllValidPaths", OpQueryFailedPaths: "QueryFailedPaths",
	OpClearFailedPaths: "ClearFailedPaths", OpQueryPathInfo: "QueryPathInfo", OpImportPaths: "ImportPaths",
	OpQueryDerivationOutputNames: "QueryDerivationOutputNames", OpQueryPathFromHashPart: "QueryPathFromHashPart",
	OpQuerySubstitutablePathInfos: "QuerySubstitutablePathInfos", OpQueryValidPaths: "QueryValidPaths",
	OpQuerySubstitutablePaths: "QuerySubstitutablePaths", OpQueryValidDerivers: "QueryValidDerivers",
	OpOptimiseStore: "OptimiseStore", OpVerifyStore: "VerifyStore", OpBuildDerivation: "BuildDerivation",
	OpAddSignatures: "AddSignatures", OpNarFromPath: "NarFromPath", OpAddToStoreNar: "AddToStoreNar",
	OpQueryMissing: "QueryMissing", OpQueryDerivationOutputMap: "QueryDerivationOutputMap",
	OpRegisterDrvOutput: "RegisterDrvOutput", OpQueryRealisation: "QueryRealisation",
	OpAddMultipleToStore: "AddMultipleToStore", OpAddBuildLog: "AddBuildLog",
	OpBuildPathsWithResults: "BuildPathsWithResults", OpAddPermRoot: "AddPermRoot",
	OpSubmitOutput: "SubmitOutput", OpAddToStoreScanning: "AddToStoreScanning",
}

// String gives upstream's name of the request, for logs; "" for none.
func (op Op) String() string { return opNames[op] }
