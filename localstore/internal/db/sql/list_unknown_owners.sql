select m.name from sqlite_master as m join pragma_foreign_key_list(m.name) as f
where m.type = 'table' and lower(f."table") in ('validpaths', 'refs', 'derivationoutputs')
  and not (m.name = 'Refs' and f."from" in ('referrer', 'reference'))
  and not (m.name = 'DerivationOutputs' and f."from" = 'drv')
  and not (m.name = 'Realisations' and f."from" = 'outputPath')
