update BuildTraceV3 set outputPath = ?3, signatures = ?4
where drvPath = ?1 and outputName = ?2
