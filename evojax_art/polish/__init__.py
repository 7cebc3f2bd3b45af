"""Finishing by gradient: a formula's constants, or the pixels of its picture."""
