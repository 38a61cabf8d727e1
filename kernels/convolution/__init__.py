"""Convolutions in two dimensions, channels last."""
