select o.path, r.signatures from Realisations r join ValidPaths o on o.id = r.outputPath
where r.drvPath = ?1 and r.outputName = ?2
