"""What the annotations of a kernel's parameters say (`declare` explains how they are written)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastnn.errors import OptionError

from .types import LETTERS, SCALARS

_ARRAY = re.compile(
    r"^(in\*?|out\*?|inout\*?|part\*?|scratch|flag) (rows|cols|whole) "
    rf"([{LETTERS}])\[([A-Za-z0-9,]+)\]$"
)


@dataclass(frozen=True)
class Array:
    """An array parameter: how it is used, its element type and its dimension letters."""

    mode: str  # "in", "out", "inout", "part", "scratch", "flag"
    axis: str  # "rows", "cols", "whole"
    dtype: str  # a letter of `types.TYPES`
    dims: tuple[str, ...]
    gaps: bool = False  # of a star

    @property
    def reads(self) -> bool:
        return self.mode in ("in", "inout")

    @property
    def writes(self) -> bool:
        return self.mode != "in"

    @property
    def item_letter(self) -> str | None:
        """The dimension that the items count, or None where the whole array is touched."""
        if self.axis == "whole":
            return None
        return self.dims[0] if self.axis == "rows" else self.dims[-1]


@dataclass(frozen=True)
class Scalar:
    kind: str  # "real", "double", "int"


def annotations_of(function: Callable[..., None]) -> dict[str, str]:
    """A function's parameters and the text of their annotations."""
    found = inspect.signature(function).parameters
    return {n: str(p.annotation).strip("'\"") for n, p in found.items()}


def signature_of(kernel: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a function whose parameters are those of a kernel, less annotations, the kernel's."""

    def take(function: Callable[..., None]) -> Callable[..., None]:
        names, told = list(annotations_of(function)), annotations_of(kernel.function)
        if names != list(told):
            raise OptionError(
                f"kernel {function.__name__!r}: expected the parameters {list(told)} of "
                f"{kernel.name!r}, got {names}"
            )
        function.__annotations__ = dict(told)
        return function

    return take


def parse_parameter(kernel: str, name: str, text: str) -> Array | Scalar:
    """What a parameter's annotation says."""
    if text in SCALARS:
        return Scalar(text)
    match = _ARRAY.match(text)
    if match is None:
        got = "it has none" if text == str(inspect.Parameter.empty) else f"got {text!r}"
        raise OptionError(
            f"kernel {kernel!r}, parameter {name!r}: {got}; expected an annotation "
            "'in|out|inout|part|scratch|flag rows|cols|whole f|r|i|d[dims]' or one of 'real', "
            "'double', 'int'"
        )
    mode, axis, dtype, letters = match.groups()
    dims = tuple(letters.split(","))
    if axis == "cols" and len(dims) == 1:  # of a vector the columns are the rows
        axis = "rows"
    return Array(mode.rstrip("*"), axis, dtype, dims, mode.endswith("*"))
