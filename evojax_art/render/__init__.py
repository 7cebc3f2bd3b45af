"""From formulas to pictures: how they look, batches of them, large ones, movies.

May import `interpreter` and below.
"""
