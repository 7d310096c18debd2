select 1 from Realisations where outputPath in (select value from json_each(?1)) limit 1
