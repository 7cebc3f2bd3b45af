"""The CPU's interpreter: code that LLVM compiles from the op table, called through XLA's FFI."""
