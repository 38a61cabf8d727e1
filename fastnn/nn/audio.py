"""Layers for audio: framing, filters learned by two frequencies each, masks over spectra."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_numbers, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.ops.layout import as_given, check_channels, check_padding, each
from fastnn.public import publish


class Frames(Module):
    """Overlapping pieces of signals (`ops.frames`): shape (N, T) to (N, pieces, length).

    Args:
        length: samples of a piece; 400 are 25 ms at 16,000 samples a second.
        step: samples from the beginning of a piece to that of the next.

    Called with ``lengths``, integers of shape (N,), it returns pieces and their numbers.

    Raises OptionError for a length or step below 1; ShapeError for signals shorter than a piece.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Frames(400, 160).predict(np.zeros((2, 16000), np.float32)).shape
    (2, 98, 400)
    """

    def __init__(self, length: int, step: int):
        check_whole("Frames", 1, length=length, step=step)
        self.length, self.step = int(length), int(step)

    def forward(self, x: Value, lengths: Value | None = None) -> Any:
        return ops.frames(x, self.length, self.step, lengths)

    def extra(self) -> str:
        return f"{self.length}, {self.step}"


class SincConv(Module):
    """Band-pass filters over raw samples, each learned by two numbers: where its band begins, and
    how wide it is (Ravanelli & Bengio 2018, "Speaker recognition from raw waveform with SincNet").

    A filter is the difference of two low-pass filters, under a Hamming window::

        low = min_low_hz + |low_hz|,  high = min(low + min_band_hz + |band_hz|, sample_rate / 2)
        g[t] = (sin(2 pi high t / rate) - sin(2 pi low t / rate)) / (2 pi t) * window[t]

    divided by its middle g[0], so that all filters have the same peak in time. In the beginning the
    bands lie side by side, evenly spaced on the mel scale from 30 Hz to half the rate.

    Args:
        out_channels: O, the number of filters.
        kernel_size: taps of a filter, an odd number.
        sample_rate: samples a second of the signals.
        stride, padding, dilation: as of `Conv1d`.
        min_low_hz, min_band_hz: the lowest frequency at which a band may begin, and the least
            width, in Hz.
        channels: as of `Conv1d`.

    Attributes:
        low, band: what is learned, low_hz and band_hz as shares of the sample rate, so that a step
            of an optimiser moves them by some Hz; shape (O, 1). The parameters of the authors'
            `SincConv_fast` are these times the rate.

    Shapes: input (N, 1, T), output (N, O, steps); with ``channels="last"`` (N, T, 1) and
    (N, steps, O). Called with ``lengths``, integers of shape (N,), it returns outputs and their
    lengths.

    Raises:
        OptionError: options that do not fit, such as an even number of taps.
        ShapeError: an input of another shape, or shorter than the filters.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> layer = nn.SincConv(40, 101, sample_rate=8000, stride=4)
    >>> layer.predict(np.zeros((2, 1, 8000), np.float32)).shape, layer.parameter_count
    ((2, 40, 1975), 80)
    """

    def __init__(
        self, out_channels: int, kernel_size: int, sample_rate: float = 16000, stride: int = 1,
        padding: int | str = 0, dilation: int = 1, min_low_hz: float = 50.0,
        min_band_hz: float = 50.0, channels: str = "first",
    ):  # fmt: skip
        name = "SincConv"
        check_whole(name, 1, out_channels=out_channels)
        check_whole(name, 3, kernel_size=kernel_size)
        check_numbers(name, sample_rate=sample_rate, min_low_hz=min_low_hz, min_band_hz=min_band_hz)
        if kernel_size % 2 == 0:
            raise OptionError(
                f"{name}: expected an odd kernel_size, so that a filter is symmetric, got "
                f"{kernel_size}; take {kernel_size + 1}"
            )
        most = sample_rate / 2 - (min_low_hz + min_band_hz)
        if min_low_hz < 0 or min_band_hz < 0 or most <= 30:
            raise OptionError(
                f"{name}: expected min_low_hz and min_band_hz from 0 on, together below half the "
                f"sample rate less 30 Hz, got {min_low_hz:g} and {min_band_hz:g} at "
                f"{sample_rate:g} samples a second"
            )
        check_channels(name, channels)
        self.out_channels, self.kernel_size = int(out_channels), int(kernel_size)
        self.sample_rate = float(sample_rate)
        self.min_low_hz, self.min_band_hz = float(min_low_hz), float(min_band_hz)
        (self.stride,), (self.dilation,) = (
            each(name, n, v, 1) for n, v in (("stride", stride), ("dilation", dilation))
        )
        self.padding = check_padding(name, padding, 1)
        self.channels = channels
        # even steps of mel, 2595 log10(1 + f / 700), are even steps of log(700 + f)
        hertz = np.geomspace(730.0, 700.0 + most, self.out_channels + 1) - 700.0
        shape = (self.out_channels, 1)
        edges = hertz[:-1].reshape(shape) / self.sample_rate
        widths = np.diff(hertz).reshape(shape) / self.sample_rate
        self.low = Parameter(shape, lambda shape, rng: edges)
        self.band = Parameter(shape, lambda shape, rng: widths)

    # ------------------------------------------------------------ the filters

    @property
    def frequencies(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where each filter's band begins and ends, in Hz: two arrays of shape (O,)."""
        rate = self.sample_rate
        low, band = (
            np.abs(np.asarray(p.value, np.float64)[:, 0]) * rate for p in (self.low, self.band)
        )
        low = low + self.min_low_hz
        return low, np.minimum(low + self.min_band_hz + band, rate / 2)

    @property
    def filters(self) -> NDArray[np.float64]:
        """The filters as they are now, shape (O, kernel_size)."""
        times, window = self._half()
        low, high = (f[:, None] / self.sample_rate for f in self.frequencies)
        left = (np.sin(high * times) - np.sin(low * times)) * window / (high - low)
        return np.concatenate([left, np.ones_like(low), left[:, ::-1]], axis=1)

    def _half(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """2 pi t for the times before a filter's middle, and the window there, divided by it."""
        half = self.kernel_size // 2
        times = 2.0 * math.pi * np.arange(-half, 0.0)
        places = np.linspace(0.0, self.kernel_size / 2 - 1, half)
        window = 0.54 - 0.46 * np.cos(2.0 * math.pi * places / self.kernel_size)
        return times, window / times

    def weight(self, low: Any, band: Any) -> Value:
        """The filters of such parameters or values, shape (O, 1, kernel_size)."""
        rate = self.sample_rate
        times, window = self._half()
        low = ops.absolute(low) + self.min_low_hz / rate
        band = ops.minimum(ops.absolute(band) + self.min_band_hz / rate, 0.5 - low)
        # sin(high t) - sin(low t) without the difference, which would cost digits
        left = ops.cos((low + band * 0.5) * times) * ops.sin(band * (0.5 * times))
        left = left * (2.0 * window) / band
        whole = ops.concatenate(left, np.ones((self.out_channels, 1)), ops.flip(left))
        return ops.reshape(whole, self.out_channels, 1, self.kernel_size)

    def forward(self, x: Value, lengths: Value | None = None) -> Any:
        place = 1 if self.channels == "first" else -1
        if x.ndim != 3 or x.shape[place] != 1:
            shape, channels, remedy = as_given(x, self.channels)
            wanted = "(batch, 1, samples)" if channels == "first" else "(batch, samples, 1)"
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected signals of one channel, shape {wanted}, "
                f"got {shape}; reshape them, or {remedy}"
            )
        return ops.conv1d(
            x, self.weight(self.low, self.band), stride=self.stride, padding=self.padding,
            dilation=self.dilation, channels=self.channels, lengths=lengths,
        )  # fmt: skip

    def extra(self) -> str:
        shown = [f"{self.out_channels}, {self.kernel_size}, sample_rate={self.sample_rate:g}"]
        usual = {"stride": 1, "padding": 0, "dilation": 1, "channels": "first"}
        for name, value in usual.items():
            given = getattr(self, name)
            given = given[0] if isinstance(given, tuple) else given
            if given != value:
                shown.append(f"{name}={given!r}")
        return ", ".join(shown)


class SpecAugment(Module):
    """Hides bands of frequencies and stretches of time in training (Park et al. 2019,
    "SpecAugment: a simple data augmentation method for automatic speech recognition").

    Each mask has a random width, uniform within 0 to the greatest, and a random place, anew for
    each sample and step. Evaluation changes nothing. (The paper's third change, the warping of
    time, is left out: its authors found that it helps least.)

    Args:
        frequency_masks, frequency_width: number of bands, and the most features that one hides.
        time_masks, time_width: number of stretches, and the most frames that one hides.
        time_share: a stretch is at most this share of the sequence, within 0 to 1.
        value: what stands in the place of what is hidden; the mean of normalised features is 0.

    Shapes: input and output (N, frames, features). With ``lengths``, integers of shape (N,), masks
    lie within the valid frames.

    Raises:
        OptionError: options out of range.
        ShapeError: an input of another shape.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.SpecAugment().predict(np.ones((2, 98, 40), np.float32)).mean()
    np.float32(1.0)
    """

    def __init__(
        self, frequency_masks: int = 2, frequency_width: int = 8, time_masks: int = 2,
        time_width: int = 20, time_share: float = 0.2, value: float = 0.0,
    ):  # fmt: skip
        name = "SpecAugment"
        check_whole(
            name, 0, frequency_masks=frequency_masks, frequency_width=frequency_width,
            time_masks=time_masks, time_width=time_width,
        )  # fmt: skip
        check_numbers(name, time_share=time_share, value=value)
        if not 0 <= time_share <= 1:
            raise OptionError(f"{name}: expected time_share in [0, 1], got {time_share}")
        self.frequency_masks, self.frequency_width = int(frequency_masks), int(frequency_width)
        self.time_masks, self.time_width = int(time_masks), int(time_width)
        self.time_share, self.value = float(time_share), float(value)

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        if x.ndim != 3:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected features of shape (batch, frames, "
                f"features), got {x.shape}; reshape them"
            )
        if not x.graph.training:
            return x
        frames, features = x.shape[1:]
        like = x[:, 0, :1]  # a number for each sample
        widest: Any = min(self.frequency_width, features)
        for _ in range(self.frequency_masks):
            hidden = self._band(like, features, features, widest)
            x = ops.where(ops.reshape(hidden, -1, 1, features), self.value, x)
        extent: Any = frames
        if lengths is not None:
            extent = ops.reshape(ops.astype(lengths), -1, 1)
        widest = (
            ops.minimum(extent * self.time_share, self.time_width)
            if lengths is not None
            else min(frames * self.time_share, self.time_width)
        )
        for _ in range(self.time_masks):
            hidden = self._band(like, frames, extent, widest)
            x = ops.where(ops.reshape(hidden, -1, frames, 1), self.value, x)
        return x

    @staticmethod
    def _band(like: Value, count: int, extent: Any, widest: Any) -> Value:
        """1 at places whose middle a mask hides, (N, count)."""
        width = ops.uniform_like(like) * widest
        begin = ops.uniform_like(like) * (extent - width)
        places = np.arange(0.5, count)[None]
        return ops.greater_equal(places, begin) * ops.less(places, begin + width)

    def extra(self) -> str:
        return (
            f"{self.frequency_masks}, {self.frequency_width}, {self.time_masks}, {self.time_width}"
        )


publish(globals(), type)
