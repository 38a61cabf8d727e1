"""What data look like to a program."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """Shape of one sample and element type ("f" or "i") of an input or target.

    `key` is its name where inputs or targets came as a dict. `small`: integers that may be meant as
    numbers (pixels, yes or no) or as ids; the model, or a target's loss, decides.
    """

    shape: tuple[int, ...]
    dtype: str
    key: str = ""
    small: bool = False
