"""Checks for users' own ops and models."""

from fastnn.testing.gradcheck import gradcheck

__all__ = ["gradcheck"]
