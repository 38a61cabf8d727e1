"""Metrics of a batch."""
