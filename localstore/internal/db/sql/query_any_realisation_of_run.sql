select 1 from Realisations where outputPath between ?1 and ?2 limit 1
