"""The networks: architectures, vocabularies, weights, and the registry that finds them.

May import `artwork` and below.
"""
