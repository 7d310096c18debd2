update Realisations set signatures = ?3 where drvPath = ?1 and outputName = ?2
