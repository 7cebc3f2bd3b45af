"""Gradients: the constants of formulas and the pixels of pictures climb the objective.

May import `objective` and below.
"""
