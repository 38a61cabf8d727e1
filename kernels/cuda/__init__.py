"""Kernels for NVIDIA GPUs: the twins of those in `kernels/cpu`, file for file."""
