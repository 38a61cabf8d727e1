"""How matrix products are computed: the option `precision` of training and prediction.

Parameters, optimiser state, activations and all sums are of the program's float type at each of
them; what differs is the type that the factors of products are rounded to. See docs/precision.md.
"""

from __future__ import annotations

from typing import Any

from fastnn.errors import OptionError
from fastnn.plan.rounding import BY_DEVICE, PRECISIONS


def check_precision(precision: Any, device: str, dtype: str) -> str:
    """The precision, if a program of this float type on this device has products of it.

    Raises:
        OptionError: it is no precision, or one that the device doesn't compute; says which it does.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision: expected one of {list(PRECISIONS)}, got {precision!r}")
    if precision == "highest":
        return "highest"
    if dtype != "float32":
        raise OptionError(
            f"precision={precision!r}: it is for float32, and the dtype is {dtype!r}; take "
            "precision='highest' or dtype='float32'"
        )
    known = BY_DEVICE[device.split(":")[0]]
    if precision not in known:
        found = " or ".join(repr(name) for name in known)
        raise OptionError(f"precision: expected {found} on {device!r}, got {precision!r}")
    return str(precision)
