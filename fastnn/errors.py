"""The errors that fastnn raises.

Each message says where the error occurred, what was expected, what was given, and how to fix it.
"""

from __future__ import annotations

import math
import numbers
import sys
import warnings
from typing import Any


class FastnnError(Exception):
    """Base of all of fastnn's own errors."""


class ShapeError(FastnnError, ValueError):
    """A shape or element type does not fit a layer, an op or the model."""


class DataError(FastnnError, ValueError):
    """Data cannot be used: wrong length, range or type, or values that are not finite."""


class OptionError(FastnnError, ValueError):
    """An argument has a value that is not allowed."""


class UnknownAttributeError(OptionError, AttributeError):
    """An attribute was set that does not exist or is read-only."""


class UnknownArgumentError(OptionError, TypeError):
    """A function was called with an argument that it does not have."""


class CheckpointError(FastnnError, ValueError):
    """A checkpoint cannot be read, is damaged, or does not fit the model."""


class NonFiniteError(FastnnError, ArithmeticError):
    """Training produced NaN or infinity."""


class BusyError(FastnnError, RuntimeError):
    """Two threads use a model in a way that would corrupt the result."""


class DeviceError(FastnnError, RuntimeError):
    """A device failed."""


class OutOfMemoryError(DeviceError, MemoryError):
    """A device has less free memory than was requested."""


class KernelError(FastnnError, RuntimeError):
    """A kernel raised an exception: `raise`, `assert`, or an index out of bounds."""


class ProcessError(FastnnError, RuntimeError):
    """One of several processes that train together has failed."""


class ProgramError(FastnnError, AssertionError):
    """The verifier found a fault in a program: a bug of fastnn's planner or of a user's op."""


def warn(message: str) -> None:
    """Warn with a `message`, pointing at the line of the user's code that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] == "fastnn" and frame.f_back:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def where(scope: str) -> str:
    """The beginning of a message: the layer's name, which is `scope`, or nothing.

    >>> where("encoder.0") + "expected 3 features"
    "layer 'encoder.0': expected 3 features"
    """
    return f"layer {scope!r}: " if scope else ""


def check_numbers(owner: str, infinite: bool = False, /, **options: Any) -> None:
    """Raise OptionError, which names `owner`, unless each of the `options` is a number (and finite,
    or `infinite` is allowed).

    >>> check_numbers("Layer", scale="2")
    Traceback (most recent call last):
    fastnn.errors.OptionError: Layer: expected scale to be a number, got '2'
    """
    for name, value in options.items():
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not real or math.isnan(value) or (math.isinf(value) and not infinite):
            raise OptionError(f"{owner}: expected {name} to be a number, got {value!r}")


def is_whole(value: Any, least: int) -> bool:
    """Whether `value` is a whole number of at least `least`; booleans do not count.

    >>> is_whole(3, 1), is_whole(3.0, 1), is_whole(True, 1)
    (True, False, False)
    """
    if type(value) is int:
        return value >= least
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value >= least


def check_whole(owner: str, least: int = 1, most: int | None = None, /, **options: Any) -> None:
    """Raise OptionError, which names `owner`, unless each of the `options` is a whole number from
    `least` to `most`.

    >>> check_whole("Layer", 1, units=0)
    Traceback (most recent call last):
    fastnn.errors.OptionError: Layer: expected units to be a whole number >= 1, got 0
    """
    for name, value in options.items():
        if not is_whole(value, least):
            raise OptionError(
                f"{owner}: expected {name} to be a whole number >= {least}, got {value!r}"
            )
        if most is not None and value > most:
            raise OptionError(f"{owner}: expected {name} to be at most {most:,}, got {value:,}")


def check_flags(owner: str, /, **options: Any) -> None:
    """Raise OptionError, which names `owner`, unless each of the `options` is True or False.

    >>> check_flags("Layer", bias=2)
    Traceback (most recent call last):
    fastnn.errors.OptionError: Layer: expected bias to be True or False, got 2
    """
    for name, value in options.items():
        if not isinstance(value, bool) and type(value).__name__ != "bool":  # NumPy's own
            raise OptionError(f"{owner}: expected {name} to be True or False, got {value!r}")


def check_eps(owner: str, eps: Any) -> None:
    """Raise OptionError, which names `owner`, unless `eps` is a number from 0 on, which keeps a
    divisor from being 0.

    >>> check_eps("Layer", -1e-5)
    Traceback (most recent call last):
    fastnn.errors.OptionError: Layer: expected eps >= 0, got -1e-05
    """
    check_numbers(owner, eps=eps)
    if eps < 0:
        raise OptionError(f"{owner}: expected eps >= 0, got {eps!r}")


def refuse_masked(data: Any, what: str) -> None:
    """Raise DataError, which says `what`, if `data` is a masked array, or a list or tuple with one.

    NumPy drops the mask when it converts one, so that masked numbers would count like all others.

    >>> refuse_masked([1.0, 2.0], "x")  # nothing is masked
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return
    items = data if isinstance(data, (list, tuple)) else (data,)
    if any(isinstance(item, numpy.ma.MaskedArray) for item in items):
        raise DataError(
            f"{what}: expected plain numbers, got a masked array, whose mask would be lost; fill "
            "it first (array.filled(0)), leave the samples out, or give the loss an ignore_index"
        )
