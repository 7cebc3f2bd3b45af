"""The language: its operators, formulas as text and as genomes, photographs as leaves.

`ops` is the one table from which everything about an operator is derived. May import `runtime`.
"""
