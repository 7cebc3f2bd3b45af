"""The networks: architectures, their weights, and the registry that finds both.

May import `artwork` and below.
"""
