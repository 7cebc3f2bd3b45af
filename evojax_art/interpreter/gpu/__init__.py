"""The GPU's interpreter: a Pallas kernel for NVIDIA cards since Hopper."""
