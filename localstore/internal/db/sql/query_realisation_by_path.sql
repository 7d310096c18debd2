select outputPath, signatures from BuildTraceV3 where drvPath = ?1 and outputName = ?2
