"""Batch and time: swaps, copies of steps."""
