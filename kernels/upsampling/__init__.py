"""Sequences stretched in time, each by its own length."""
