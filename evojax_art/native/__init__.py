"""Code for this CPU: written in LLVM's language, compiled on first use, called by XLA."""
