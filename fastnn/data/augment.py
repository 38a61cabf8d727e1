"""Augmentation of recordings: noise, loudness, speed, rooms; each new in every epoch.

`Augment(...)` joins several; `Buckets(..., transform=augment)` applies them to the sequences of its
batches. All random numbers come of the generator that is handed in. `Buckets` makes it of its seed,
the epoch and the sequence's number, so that a run can be repeated, resumed, and made with any
number of workers. Evaluation and prediction never see a transform. (Masks over spectra are a
layer, `nn.SpecAugment`.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastnn.data.features import Floats
from fastnn.data.signals import as_signal, change_speed, power
from fastnn.errors import DataError, OptionError, check_numbers

Generator = np.random.Generator
Range = float | tuple[float, float]


# ---------------------------------------------------------------- functions


def with_noise(signal: ArrayLike, noise: ArrayLike, snr: float) -> Floats:
    """A signal with noise at a given ratio of their powers.

    Args:
        signal: shape ``(samples,)``.
        noise: at least as long; the rest is cut off.
        snr: 10 log10(power of the signal / power of the noise), in dB.

    Silence, of either, leaves the signal as it is.

    Raises DataError for noise that is shorter than the signal.

    >>> y = fnn.data.with_noise(np.ones(4), np.array([1.0, -1.0, 1.0, -1.0]), 20.0)
    >>> y  # a tenth of the amplitude: 20 dB
    array([1.1, 0.9, 1.1, 0.9])
    """
    x, n = as_signal(signal), as_signal(noise, "noise")
    if len(n) < len(x):
        raise DataError(
            f"with_noise: expected noise of at least {len(x):,} samples, got {len(n):,}; repeat it"
        )
    n = n[: len(x)]
    signal_power, noise_power = power(x), power(n)
    if signal_power == 0 or noise_power == 0:
        return x
    scale = math.sqrt(signal_power / noise_power) * 10 ** (-snr / 20)
    return np.asarray(x + n * x.dtype.type(scale), x.dtype)


def change_gain(signal: ArrayLike, decibels: float) -> Floats:
    """A signal times 10^(decibels / 20).

    >>> fnn.data.change_gain(np.array([0.1, -0.1]), 20.0)
    array([ 1., -1.])
    """
    x = as_signal(signal)
    return np.asarray(x * x.dtype.type(10 ** (decibels / 20)), x.dtype)


def room_response(
    rate: float, reverberation: float, rng: Generator, *, direct: float = 0.0
) -> Floats:
    """The impulse response of a room that does not exist: the direct sound, then noise that fades
    away exponentially (Polack 1988).

    Args:
        rate: samples a second.
        reverberation: seconds until the sound has fallen by 60 dB.
        rng: draws the noise.
        direct: energy of the direct sound over that of the reverberation, in dB.

    Returns shape ``(reverberation * rate, rounded up,)``, with the energy (the sum of squares) 1
    and the direct sound first.

    Raises OptionError for a rate or a reverberation time that is not above 0.

    >>> h = fnn.data.room_response(8000, 0.25, np.random.default_rng(0))
    >>> h.shape, bool(np.isclose((h**2).sum(), 1.0))
    ((2000,), True)
    """
    check_numbers("room_response", rate=rate, reverberation=reverberation, direct=direct)
    if rate <= 0 or reverberation <= 0:
        raise OptionError(
            "room_response: expected a rate and a reverberation time above 0, got "
            f"{rate} and {reverberation}"
        )
    count = max(math.ceil(reverberation * rate), 2)
    times = np.arange(count) / rate
    response = rng.standard_normal(count) * 10 ** (-3 * times / reverberation)
    response[0] = 0
    response *= math.sqrt(10 ** (-direct / 10) / np.sum(response**2))
    response[0] = 1
    return np.asarray(response / math.sqrt(np.sum(response**2)))


def reverberate(signal: ArrayLike, response: ArrayLike) -> Floats:
    """A signal in a room: convolved with its impulse response, cut to the signal's length.

    >>> fnn.data.reverberate(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.5]))
    array([1. , 0.5, 0. ])
    """
    x, h = as_signal(signal), as_signal(response, "response")
    size = 1 << (len(x) + len(h) - 2).bit_length()
    whole = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(h, size), size)
    return np.asarray(whole[: len(x)], x.dtype)


# ---------------------------------------------------------------- what draws anew each time


class Augmentation:
    """A random change of a signal: ``augmentation(signal, rng)``, shape ``(samples,)`` to another.

    Args:
        chance: the probability that it is made.
    """

    chance: float

    def _keep(self, chance: float) -> None:
        name = type(self).__name__
        check_numbers(name, chance=chance)
        if not 0 <= chance <= 1:
            raise OptionError(f"{name}: expected chance in [0, 1], got {chance}")
        self.chance = float(chance)

    def __call__(self, signal: ArrayLike, rng: Generator) -> Floats:
        x = as_signal(signal)
        return self.change(x, rng) if rng.random() < self.chance else x

    def change(self, signal: Floats, rng: Generator) -> Floats:
        """The changed signal."""
        raise NotImplementedError


def _range(name: str, option: str, given: Range, least: float = -math.inf) -> tuple[float, float]:
    """Two numbers between which one is drawn; a single number stands for both."""
    pair = tuple(given) if isinstance(given, (tuple, list)) else (given, given)
    if len(pair) != 2:
        raise OptionError(f"{name}: expected {option} as (lowest, highest), got {given!r}")
    check_numbers(name, **{f"{option}_low": pair[0], f"{option}_high": pair[1]})
    if not least <= pair[0] <= pair[1]:
        raise OptionError(
            f"{name}: expected {option} as (lowest, highest)"
            + (f" from {least:g} on" if least > -math.inf else "")
            + f", got {given!r}"
        )
    return float(pair[0]), float(pair[1])


class AddNoise(Augmentation):
    """Noise at a random ratio of powers.

    Args:
        snr: signal over noise in dB, between these two.
        noises: recordings of noise, of which a random piece of a random one is taken (a short one
            is repeated); None is white noise, normally distributed.
        chance: see `Augmentation`.

    Raises OptionError for a range or a chance that is none, and for an empty list of noises.

    >>> noisy = AddNoise((10, 20))(np.sin(np.arange(8000) / 3), np.random.default_rng(0))
    """

    def __init__(
        self, snr: Range = (5.0, 20.0), noises: Sequence[ArrayLike] | None = None,
        chance: float = 1.0,
    ):  # fmt: skip
        self._keep(chance)
        self.snr = _range("AddNoise", "snr", snr)
        self.noises = None
        if noises is not None:
            self.noises = [
                as_signal(noise, f"AddNoise: noise {k}") for k, noise in enumerate(noises)
            ]
            if not self.noises:
                raise OptionError(
                    "AddNoise: expected recordings of noise, got none; None is white noise"
                )

    def change(self, signal: Floats, rng: Generator) -> Floats:
        snr = rng.uniform(*self.snr)
        if self.noises is None:
            return with_noise(signal, rng.standard_normal(len(signal)), snr)
        noise = self.noises[rng.integers(len(self.noises))]
        begin = rng.integers(len(noise))
        places = (begin + np.arange(len(signal))) % len(noise)
        return with_noise(signal, noise[places], snr)


class Gain(Augmentation):
    """Another loudness.

    Args:
        decibels: between these two; -6 is half the amplitude.
        chance: see `Augmentation`.

    Raises OptionError for a range or a chance that is none.

    >>> quieter = Gain((-6.0, -6.0))
    >>> quieter(np.ones(2, np.float32), np.random.default_rng(0)).round(3)
    array([0.501, 0.501], dtype=float32)
    """

    def __init__(self, decibels: Range = (-6.0, 6.0), chance: float = 1.0):
        self._keep(chance)
        self.decibels = _range("Gain", "decibels", decibels)

    def change(self, signal: Floats, rng: Generator) -> Floats:
        return change_gain(signal, rng.uniform(*self.decibels))


class Speed(Augmentation):
    """Another speed, and with it pitch and length (`change_speed`).

    Args:
        factor: between these two, in steps of a hundredth.
        chance: see `Augmentation`.

    Raises OptionError for factors outside 0.1 to 10, and for a chance that is none.

    >>> Speed((2.0, 2.0))(np.ones(100, np.float32), np.random.default_rng(0)).shape
    (50,)
    """

    def __init__(self, factor: Range = (0.9, 1.1), chance: float = 1.0):
        self._keep(chance)
        self.factor = _range("Speed", "factor", factor, 0.1)
        if self.factor[1] > 10:
            raise OptionError(f"Speed: expected a factor of at most 10, got {factor!r}")

    def change(self, signal: Floats, rng: Generator) -> Floats:
        return change_speed(signal, round(rng.uniform(*self.factor), 2))


class Room(Augmentation):
    """A room of a random impulse response (`room_response`).

    Args:
        rate: samples a second.
        reverberation: seconds until the sound has fallen by 60 dB, between these two.
        direct: energy of the direct sound over the rest, in dB, between these two.
        chance: see `Augmentation`.

    Raises OptionError for a rate that is not above 0, and for a range or a chance that is none.

    >>> Room(8000)(np.ones(100, np.float32), np.random.default_rng(0)).shape
    (100,)
    """

    def __init__(
        self, rate: float, reverberation: Range = (0.1, 0.5), direct: Range = (0.0, 10.0),
        chance: float = 0.5,
    ):  # fmt: skip
        self._keep(chance)
        check_numbers("Room", rate=rate)
        if rate <= 0:
            raise OptionError(f"Room: expected a rate above 0, got {rate}")
        self.rate = float(rate)
        self.reverberation = _range("Room", "reverberation", reverberation, 1e-3)
        self.direct = _range("Room", "direct", direct)

    def change(self, signal: Floats, rng: Generator) -> Floats:
        seconds, direct = rng.uniform(*self.reverberation), rng.uniform(*self.direct)
        return reverberate(signal, room_response(self.rate, seconds, rng, direct=direct))


class Augment:
    """Several changes, one after another: a transform for `Buckets`.

    Args:
        changes: functions of a signal and a generator, such as those of this module.

    Raises OptionError for a change that is no function.

    >>> augment = Augment(Speed((0.9, 1.1)), Room(8000), AddNoise((5, 20)), Gain((-6, 6)))
    >>> augment(np.sin(np.arange(8000) / 3), np.random.default_rng(0)).dtype
    dtype('float64')
    """

    def __init__(self, *changes: Callable[[Any, Generator], Any]):
        for change in changes:
            if not callable(change):
                raise OptionError(
                    f"Augment: expected functions of a signal and a generator, got {change!r}"
                )
        self.changes = changes

    def __call__(self, signal: ArrayLike, rng: Generator) -> Floats:
        x: Any = as_signal(signal)
        for change in self.changes:
            x = change(x, rng)
        return np.asarray(x)
