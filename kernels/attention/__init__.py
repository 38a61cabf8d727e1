"""Attention: sums of values, weighted by how well keys fit queries."""
