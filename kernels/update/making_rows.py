"""As `making.py`, for updates in passes over rows: apart, since most optimisers need none."""

from .cpu_rows import make_combine, make_rows

__all__ = ["make_combine", "make_rows"]
