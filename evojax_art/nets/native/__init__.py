"""The CPU's way through a network: code that LLVM compiles, picture by picture."""
