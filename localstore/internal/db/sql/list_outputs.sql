select drv, path from DerivationOutputs
