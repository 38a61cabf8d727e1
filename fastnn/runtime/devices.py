"""Choice of device."""

from __future__ import annotations

import os

from fastnn.errors import OptionError


def cuda_reason() -> str:
    """Why CUDA is not used."""
    return "this version of fastnn has no CUDA runtime"


def choose(device: str = "auto") -> str:
    """The device that "auto", "cpu", "cuda" or "cuda:N" means here.

    `FASTNN_DEVICE` replaces "auto". Asking for CUDA where it can't be had is an error saying why.
    """
    wanted = os.environ.get("FASTNN_DEVICE", "auto") if device == "auto" else device
    if wanted in ("auto", "cpu"):
        return "cpu"
    if wanted == "cuda" or wanted.startswith("cuda:"):
        raise OptionError(
            f"device {wanted!r} cannot be used: {cuda_reason()}; use device='cpu' or 'auto'"
        )
    raise OptionError(f"device: expected 'auto', 'cpu' or 'cuda', got {wanted!r}")
