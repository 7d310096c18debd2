insert or replace into DerivationOutputs (drv, id, path) values (?1, ?2, ?3)
