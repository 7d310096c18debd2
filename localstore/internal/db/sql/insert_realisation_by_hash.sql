insert into Realisations (drvPath, outputName, outputPath, signatures) values (?1, ?2, ?3, ?4)
