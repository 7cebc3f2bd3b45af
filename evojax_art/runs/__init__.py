"""Whole runs, from settings to a folder of results: evolution, dreams, training.

May import `search` and below.
"""
