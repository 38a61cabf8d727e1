"""Sums over the batch, running totals, the end of a step."""
