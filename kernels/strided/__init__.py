"""Copies by strides."""
