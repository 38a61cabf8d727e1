"""Sums over rows and columns; reductions along rows."""
