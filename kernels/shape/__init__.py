"""Columns of a matrix: put together, taken out."""
