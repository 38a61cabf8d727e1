"""Maxima and averages of windows, channels last."""
