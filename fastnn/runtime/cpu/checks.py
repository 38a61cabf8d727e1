"""What the environment asks of compiled code: with `FASTNN_CHECK=1` kernels check their indices, to
find faults; `FASTNN_TILE_UNIT=0` leaves the CPU's tile unit alone."""

from __future__ import annotations

import os

from fastnn import switches
from fastnn.errors import OptionError


def checked() -> bool:
    """Whether the mode is on."""
    return switches.on("FASTNN_CHECK")


def check_tile_unit() -> None:
    """Raise OptionError unless `FASTNN_TILE_UNIT` is spelled as `kernels/cpu/target.py` reads it,
    which is part of every kernel's key and below this package's switches."""
    name = "FASTNN_TILE_UNIT"
    if not switches.on(name, default=True) and os.environ[name] != "0":
        raise OptionError(f"{name}={os.environ[name]!r}: write 0 to turn it off")
