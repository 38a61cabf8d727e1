"""Signals: what they have to be like, and other sample rates and speeds."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.data.features import Floats, as_floats
from fastnn.errors import DataError, OptionError

#: zero crossings of the interpolating sinc on each side, and the share of the band that is kept
CROSSINGS, BAND = 12, 0.95
#: samples that are interpolated at a time: their windows take twenty times their memory and more
PIECE = 1 << 14


def as_signal(signal: ArrayLike, what: str = "signal") -> Floats:
    """A waveform of one channel as floats, checked.

    Args:
        signal: shape ``(samples,)``.
        what: what it is called in messages: the file, for one.

    Raises DataError for several channels, for no samples, and where a sample is not finite.
    """
    x = np.asarray(signal)
    if x.shape[:1] == (0,):
        raise DataError(
            f"{what}: expected samples, got none; leave the recording out, or record it again"
        )
    if x.ndim != 1:
        raise DataError(
            f"{what}: expected a waveform of one channel, shape (samples,), got shape {x.shape}; "
            "of several channels take one, or their mean over axis 1"
        )
    if x.dtype.kind not in "fiub":
        raise DataError(f"{what}: expected samples as numbers, got {x.dtype}; convert them")
    x = as_floats(x)
    bad = np.flatnonzero(~np.isfinite(x))
    if len(bad):
        raise DataError(
            f"{what}: expected finite samples, got {x[bad[0]]} at sample {bad[0]:,} ({len(bad):,} "
            f"of {len(x):,} are not finite); leave the recording out, or replace them by "
            "np.nan_to_num"
        )
    return x


def check_rate(rate: float, expected: float, what: str = "signal") -> None:
    """Raise DataError for another sample rate than the expected one."""
    if rate != expected:
        raise DataError(
            f"{what}: expected {expected:g} samples a second, got {rate:g}; convert it by "
            f"fastnn.data.resample(samples, {rate:g}, {expected:g})"
        )


def resample(signal: ArrayLike, rate: int, new_rate: int) -> Floats:
    """A signal at another sample rate: band-limited interpolation by a windowed sinc.

    What lies above half the lower of the two rates is removed first, so that nothing is aliased.

    Args:
        signal: shape ``(samples,)``.
        rate, new_rate: samples a second before and after, whole numbers.

    Returns shape ``(samples * new_rate / rate, rounded up,)``.

    Raises OptionError for rates that are not whole numbers from 1 on, DataError as `as_signal`.

    >>> resample(np.sin(np.arange(16000) / 10), 16000, 8000).shape
    (8000,)
    """
    for name, value in (("rate", rate), ("new_rate", new_rate)):
        if isinstance(value, bool) or not value == int(value) or value < 1:
            raise OptionError(
                f"resample: expected {name} to be a whole number from 1 on, got {value!r}"
            )
    return _stepped(as_signal(signal), Fraction(int(rate), int(new_rate)))


def change_speed(signal: ArrayLike, factor: float) -> Floats:
    """A signal played faster (a factor above 1) or slower: its pitch and tempo change together.

    Args:
        signal: shape ``(samples,)``.
        factor: of the speed, within 0.1 to 10: the nearest fraction whose denominator is at
            most 100.

    Returns shape ``(samples / factor, rounded up,)``.

    Ko, Peddinti, Povey and Khudanpur, "Audio augmentation for speech recognition", Interspeech
    2015.

    Raises OptionError for a factor outside 0.1 to 10.

    >>> change_speed(np.zeros(8000), 1.25).shape
    (6400,)
    """
    if not 0.1 <= factor <= 10:
        raise OptionError(f"change_speed: expected a factor from 0.1 to 10, got {factor}")
    return _stepped(as_signal(signal), Fraction(factor).limit_denominator(100))


def _stepped(x: Floats, step: Fraction) -> Floats:
    """The signal at the times 0, step, 2 step, ... in samples, as far as it goes."""
    if step == 1:
        return x
    up, down = step.denominator, step.numerator
    table, reach = _phases(up, down)  # (up, 2 reach + 1)
    count = -(-len(x) * up // down)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, reach), 2 * reach + 1)
    table, found = table.astype(x.dtype), np.empty(count, x.dtype)
    for begin in range(0, count, PIECE):
        places = np.arange(begin, min(begin + PIECE, count), dtype=np.int64) * down
        found[begin : begin + PIECE] = np.einsum(
            "nk,nk->n", windows[places // up], table[places % up]
        )
    return found


@lru_cache(maxsize=64)
def _phases(up: int, down: int) -> tuple[NDArray[np.float64], int]:
    """The interpolating filter for each of `up` places between two samples, and its reach."""
    cut = BAND * min(1.0, up / down)  # as a share of half the rate
    reach = math.ceil(CROSSINGS / cut)
    times = np.arange(-reach, reach + 1) - np.arange(up)[:, None] / up
    inside = np.clip(times * cut / CROSSINGS, -1, 1)
    taps = cut * np.sinc(cut * times) * np.cos(inside * (np.pi / 2)) ** 2
    taps /= taps.sum(axis=1, keepdims=True)  # a constant stays what it is
    taps.flags.writeable = False
    return taps, reach


def power(signal: Any) -> float:
    """The mean square of a signal's samples."""
    return float(np.mean(np.square(np.asarray(signal, np.float64))))
