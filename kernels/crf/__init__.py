"""Conditional random fields: chains of tags."""
