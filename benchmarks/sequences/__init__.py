"""Nets that turn sequences into sequences, side by side with PyTorch (and optax for its CTC)."""
