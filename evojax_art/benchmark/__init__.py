"""Measures the engine: its parts side by side, their floors, how they grow.

May import `runs` and below.
"""
