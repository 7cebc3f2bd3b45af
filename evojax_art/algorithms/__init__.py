"""How a population changes: one algorithm per file, all with the protocol of `base`."""
