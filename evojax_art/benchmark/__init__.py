"""Measuring the engine: rows side by side, floors, sweeps, a picture of them."""
