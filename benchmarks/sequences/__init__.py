"""Nets that turn sequences into sequences, side by side with PyTorch and JAX with optax."""
