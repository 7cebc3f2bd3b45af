"""What a step of a network consists of for native code: a row of int64s.

A view is a tensor [G, rows, columns, channels] in memory: `base` is the number of a pointer,
`start` an offset there, in floats as all others; `shift` is how far the next of all pictures lies
from it, and 0 where every group has the same memory; `plane`, `row` and `pixel` are how far a
picture, a row and a pixel lie from the next. `height` and `breadth` are the window's, `kernel` and
`bias` numbers of pointers. To clear is to write zeros around `rows` and `columns` of the target, so
many as `MARGINS` say.
"""

KINDS = ("convolve", "convolve_depthwise", "max_pool", "mean_pool", "sum", "clear")
ACTIVATIONS = ("none", "relu", "relu6")
VIEWS = ("source", "target", "plus")
VIEW = ("base", "start", "shift", "plane", "row", "pixel")
_SIZES = ("inputs", "outputs", "rows", "columns", "height", "breadth", "stride")
MARGINS = ("above", "below", "left", "right")
FIELDS = (
    "kind",
    *(f"{view}_{part}" for view in VIEWS for part in VIEW),
    *_SIZES,
    "kernel",
    "bias",
    "activation",
    *MARGINS,
)
