"""What executes formulas: the door (`api`), and the implementations behind it.

`reference` is the specification, in NumPy; `xla` is plain JAX; `cpu` is native code that LLVM
compiles, `gpu` a Pallas kernel; `reverse` and `trace` are differentiable. May import `lowering`
and below.
"""
