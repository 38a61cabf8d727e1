"""Losses row by row: cross entropy, NLL, and those between two arrays."""
