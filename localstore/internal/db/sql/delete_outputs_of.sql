delete from DerivationOutputs where drv in (select value from json_each(?1))
