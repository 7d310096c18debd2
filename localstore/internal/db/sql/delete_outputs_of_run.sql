delete from DerivationOutputs where drv between ?1 and ?2
