"""How matrix products are computed: the option `precision` of training and prediction.

Parameters, optimiser state, activations and all sums are of the program's float type at each of
them; what differs is the type that the factors of products are rounded to. See docs/precision.md.
"""

from __future__ import annotations

from typing import Any

from fastnn.errors import OptionError
from fastnn.plan.rounding import PRECISIONS


def check_precision(precision: Any, dtype: str) -> str:
    """The precision, if programs of this float type have products of it; all devices compute all.

    Raises:
        OptionError: it is no precision, or not one of this float type's.
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
    return str(precision)
