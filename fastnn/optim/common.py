"""Checks and names of options that several optimisers have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

import numpy as np

from fastnn.errors import OptionError
from fastnn.files import one_line
from fastnn.spellings import OPTIONS

#: the largest count that an option may be: kernels take it as a whole number of 64 bits, and no
#: training has more steps
MOST = 2**31 - 1
#: limits that may be left out
NONE = ("clip_value", "clip_norm", "max_norm")


def betas_of(given: Any) -> tuple[Any, Any]:
    """The decay rates of two moments.

    Raises OptionError for what isn't two numbers; their range is `below_one`'s.
    """
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise OptionError(f"optimizer betas: expected two numbers in [0, 1), got {given!r}")
    return given[0], given[1]


def below_one(options: Mapping[str, Any], *names: str) -> str | None:
    """What is wrong with options that have to lie in [0, 1), or None."""
    for name in names:
        if not 0 <= options[name] < 1:
            if name in ("beta1", "beta2"):
                return f"betas: expected numbers in [0, 1), got {options[name]}"
            return f"{name}: expected a number in [0, 1), got {options[name]}"
    return None


def check_numbers(
    options: Mapping[str, Any], shown: Mapping[str, str], switches: Iterable[str]
) -> None:
    """Raise OptionError for an option that is no number, or a switch that is no bool.

    Args:
        options: by name.
        shown: how messages call them.
        switches: names of those that are True or False.
    """
    for name, value in options.items():
        if name in switches:
            if not isinstance(value, bool):
                raise OptionError(f"optimizer {shown[name]}: expected a bool, got {value!r}")
        elif not is_real(value) and not (value is None and name in NONE):
            raise OptionError(f"optimizer {shown[name]}: expected a number, got {value!r}")


def check_not_negative(options: Mapping[str, Any], shown: Mapping[str, str]) -> None:
    """Raise OptionError for a number below 0."""
    for name, value in options.items():
        if value is not None and value < 0:
            raise OptionError(
                f"optimizer {shown[name]}: expected a number that is not negative, got {value}"
            )


def no_schedule(given: Any) -> OptionError:
    """The error for what stands where a schedule has to."""
    from fastnn.optim import schedules

    names = ", ".join(name for name in schedules.__all__ if name != "Schedule")
    return OptionError(
        f"optimizer schedule: expected one of fastnn.optim.schedules ({names}), got "
        f"{one_line(repr(given), 60)}"
    )


def above_zero(options: Mapping[str, Any], *names: str) -> str | None:
    """What is wrong with options that have to be above 0, or None."""
    for name in names:
        if not options[name] > 0:
            return f"{name}: expected a number above 0, got {options[name]}"
    return None


def decoupled(groups: Any, name: str = "decoupled_weight_decay") -> Any:
    """Groups of an optimiser whose `weight_decay` isn't L2, by the name of the option that it is;
    what is no dict of dicts is left for the base class to refuse."""
    if not isinstance(groups, Mapping) or any(not isinstance(g, Mapping) for g in groups.values()):
        return groups
    return {
        pattern: {name if k == "weight_decay" else k: v for k, v in g.items()}
        for pattern, g in groups.items()
    }


def refuse_unknown(owner: str, unknown: Iterable[str], known: Iterable[str]) -> None:
    """Raise OptionError for the first option that is not known."""
    for name in unknown:
        there = sorted(known)
        called = OPTIONS.get(name)
        wanted = f"{called!r}, as it is called here" if called in there else f"some of {there}"
        raise OptionError(f"{owner}: unknown option {name!r}; expected {wanted}")


def is_real(value: Any) -> bool:
    """Whether this is a finite number; booleans do not count."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def plain(value: Any) -> Any:
    """NumPy's numbers (also arrays of one, without dimensions) as Python's."""
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        return value.item()
    return value


def check_positive(name: str, value: float | None) -> None:
    """Raise OptionError for what is neither None nor a positive number."""
    if value is not None and not (is_real(value) and value > 0):
        raise OptionError(f"optimizer {name}: expected a positive number or None, got {value!r}")
