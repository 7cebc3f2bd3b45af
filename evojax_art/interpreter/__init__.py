"""What executes formulas: the door (`api`), and the implementations behind it.

`reference` is the specification, in NumPy; `xla` is plain JAX; `cpu` is native code that LLVM
compiles, `gpu` a Pallas kernel; `reverse` is differentiable. What an instruction computes is said
once, in `instruction`; what each implementation can do in `implementations`, among which an
execution plan chooses. May import `lowering` and below.
"""

from evojax_art.interpreter import implementations as implementations  # registers them
