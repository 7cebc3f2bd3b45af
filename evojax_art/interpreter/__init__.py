"""What evaluates formulas: one specification, one device form, one door (`api`)."""
