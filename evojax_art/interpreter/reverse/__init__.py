"""Any program, differentiably: native code on a CPU, plain JAX elsewhere, one door (`api`)."""
