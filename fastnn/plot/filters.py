"""Filters of a first layer over samples: in time, and by the frequencies that they let pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnn.data.audio import from_mel, to_mel
from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, OptionError, ShapeError, check_numbers, check_whole
from fastnn.nn.audio import SincConv
from fastnn.nn.convolution import Conv1d
from fastnn.plot._figure import Path, done, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: points of the transform for responses, at least
POINTS = 1024


def filters(
    layer: Any, rate: float | None = None, *, count: int = 32, columns: int = 8, path: Path = None
) -> Figure:
    """Draw filters over time, sorted by the frequency that each lets pass best.

    Args:
        layer: an `nn.SincConv`, an `nn.Conv1d` of one input channel, or an array, shape
            (filters, taps).
        rate: samples a second; not needed for an `nn.SincConv`.
        count: most filters to draw, evenly spaced among all.
        columns: panels in a row.
        path: where the picture is saved.

    Raises:
        ShapeError: the weights have another shape. DataError: they are not finite numbers.
            OptionError: no rate, or one that is not positive.

    >>> import fastnn as fnn
    >>> figure = fnn.plot.filters(fnn.nn.SincConv(8, 101, sample_rate=8000))
    >>> len(figure.axes)
    8
    """
    check_whole("filters", 1, count=count, columns=columns)
    taps, rate = _taps(layer, rate, "filters")
    order, centres, _ = _sorted(taps, rate)
    some = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).astype(int))
    milliseconds = (np.arange(taps.shape[1]) - (taps.shape[1] - 1) / 2) / rate * 1000
    figure, axes = grid(len(some), 1.5, 1.1, columns)
    for place, ax in zip(some, axes, strict=True):
        line = taps[order[place]]
        ax.plot(milliseconds, line, linewidth=0.8)
        ax.set_title(f"{centres[place]:.0f} Hz", fontsize=7)
        ax.set_yticks([])
        ax.tick_params(labelsize=6)
        bound = np.abs(line).max() or 1.0
        ax.set_ylim(-1.1 * bound, 1.1 * bound)
    figure.supxlabel("ms", fontsize=8)
    return done(figure, path)


def frequency_responses(layer: Any, rate: float | None = None, *, path: Path = None) -> Figure:
    """Draw which frequencies filters let pass, the filters sorted by centre frequency; and their
    centre frequencies beside those of as many filters on the mel scale.

    A filter's centre frequency is the one that it lets pass best. Where the curve is flatter than
    the mel scale's, the net has spent more filters on these frequencies.

    Args:
        layer, rate, path: as of `filters`.

    Raises: as `filters`.

    >>> import fastnn as fnn
    >>> figure = fnn.plot.frequency_responses(fnn.nn.SincConv(8, 101, sample_rate=8000))
    >>> [ax.get_xlabel() for ax in figure.axes]
    ['frequency in Hz', 'filter']
    """
    taps, rate = _taps(layer, rate, "frequency_responses")
    order, centres, gains = _sorted(taps, rate)
    decibels = 20 * np.log10(np.maximum(gains[order] / gains.max(axis=1)[order, None], 1e-3))
    figure, (image, curve) = grid(2, 5.0, 4.0)
    image.imshow(
        decibels, aspect="auto", origin="lower", cmap="magma", vmin=-40, vmax=0,
        extent=(0, rate / 2, -0.5, len(order) - 0.5), interpolation="nearest",
    )  # fmt: skip
    image.set_xlabel("frequency in Hz")
    image.set_ylabel("filter, by centre frequency")
    image.set_title("what each lets pass (dB, from 0 to -40)", fontsize=9)
    mel = from_mel(np.linspace(0, to_mel(rate / 2), len(order) + 2)[1:-1])
    curve.plot(np.arange(len(order)), centres, ".", label="centre frequency")
    curve.plot(np.arange(len(order)), mel, label="mel scale")
    curve.set_xlabel("filter")
    curve.set_ylabel("Hz")
    curve.legend(fontsize=8)
    return done(figure, path)


def _sorted(
    taps: NDArray[np.float64], rate: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """The filters' order by centre frequency, the frequencies in this order, and gains of all
    filters, (filters, frequencies)."""
    size = max(POINTS, 1 << (2 * taps.shape[1] - 1).bit_length())
    gains = np.abs(np.fft.rfft(taps, size))
    centres = gains.argmax(axis=1) * rate / size
    order = np.argsort(centres, kind="stable")
    return order, centres[order], np.maximum(gains, 1e-300)


def _taps(layer: Any, rate: float | None, owner: str) -> tuple[NDArray[np.float64], float]:
    """The filters, (filters, taps), and the sample rate."""
    if isinstance(layer, SincConv):
        return layer.filters, layer.sample_rate if rate is None else _rate(rate, owner)
    given = layer.weight.value if isinstance(layer, Conv1d) else layer
    taps = numbers(given, owner).astype(np.float64)
    if taps.ndim == 3 and taps.shape[1] == 1:
        taps = taps[:, 0]
    if taps.ndim != 2 or not taps.size:
        raise ShapeError(
            f"{owner}: expected filters of one channel, shape (filters, taps) or (filters, 1, "
            f"taps), got {taps.shape}; give the first layer over samples"
        )
    if not np.isfinite(taps).all():
        raise DataError(f"{owner}: expected finite numbers, got some that are not")
    if rate is None:
        raise OptionError(f"{owner}: expected rate, the samples a second of the signals, got None")
    return taps, _rate(rate, owner)


def _rate(rate: float, owner: str) -> float:
    check_numbers(owner, rate=rate)
    if rate <= 0:
        raise OptionError(f"{owner}: expected a rate above 0, got {rate}")
    return float(rate)
