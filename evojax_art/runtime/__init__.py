"""What every room stands on: errors, files written whole, cores, caches, progress, the plan.

Imports nothing of the package.
"""
