"""Evolves pictures out of formulas over quaternions, on the device.

The names here are the stable ones; everything else may move.
"""

from evojax_art.language.formula import Expression, parse, to_text
from evojax_art.language.program import Program, decode, encode
from evojax_art.nets.weights import load_net
from evojax_art.objective.tv import denoise_tv_chambolle, total_variation, tv_noise
from evojax_art.render.batch import evaluate, render
from evojax_art.render.large import render_large
from evojax_art.runtime.errors import InputError
from evojax_art.search.generation import Evolution

__all__ = [
    "Evolution",
    "Expression",
    "InputError",
    "Program",
    "decode",
    "denoise_tv_chambolle",
    "encode",
    "evaluate",
    "load_net",
    "parse",
    "render",
    "render_large",
    "to_text",
    "total_variation",
    "tv_noise",
]
