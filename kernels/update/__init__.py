"""Optimisers' updates, clipping."""
