update BuildTraceV3 set signatures = ?3 where drvPath = ?1 and outputName = ?2
