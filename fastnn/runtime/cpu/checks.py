"""A mode for finding faults: `FASTNN_CHECK=1` has kernels compiled with checks of their indices."""

from __future__ import annotations

import os


def checked() -> bool:
    """Whether the mode is on."""
    return os.environ.get("FASTNN_CHECK", "0") not in ("", "0")
