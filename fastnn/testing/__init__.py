"""Checks for users' own ops and models."""

from fastnn.testing.apply import apply
from fastnn.testing.gradcheck import gradcheck

__all__ = ["apply", "gradcheck"]
