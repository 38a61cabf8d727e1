"""Speech as features: reading, framing, spectra, mel filters, cepstra, and their changes over time.

From a waveform, shape ``(samples,)``, to features, float32, shape ``(frames, features)``: `log_mel`
and `mfcc` do the whole of it; the other functions are their steps. The defaults are the usual ones
of speech recognition: frames of 25 ms every 10 ms, pre-emphasis 0.97, Hamming window, power
spectrum, triangular filters on the mel scale, logarithm, and for cepstra the cosine transform and
lifter.

Computation is in the precision of the waveform, float32 or float64.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.data.features import (
    Features,
    Floats,
    Normaliser,
    as_floats,
    deltas,
    normalise,
    with_deltas,
)
from fastnn.data.recordings import read_audio
from fastnn.data.signals import as_signal
from fastnn.errors import OptionError

__all__ = [
    "FLOOR", "Features", "Floats", "Normaliser", "Scale", "Window", "dct_matrix", "deltas",
    "frames", "from_mel", "lifter", "log_mel", "mel_filters", "mfcc", "normalise", "power_spectrum",
    "pre_emphasis", "read_audio", "to_mel", "with_deltas",
]  # fmt: skip

Scale: TypeAlias = Literal["htk", "slaney"]
Window: TypeAlias = Literal["hamming", "hann", "none"]

#: the least energy whose logarithm is taken
FLOOR = 1e-10


def pre_emphasis(signal: ArrayLike, coefficient: float = 0.97) -> Floats:
    """y[n] = x[n] − c·x[n−1], y[0] = x[0]: raises high frequencies, which are weak in speech."""
    x = as_signal(signal)
    y = x.copy()
    y[1:] -= x.dtype.type(coefficient) * x[:-1]
    return y


def frames(signal: ArrayLike, length: int, step: int, *, pad: bool = False) -> Floats:
    """Overlapping pieces of a signal.

    Args:
        signal: shape ``(samples,)``.
        length: samples of a piece.
        step: samples from the beginning of a piece to that of the next.
        pad: add zeros for a last piece that holds what remains; otherwise the remainder is left
            out, as HTK does. A signal shorter than `length` always gives one piece with zeros.

    Returns shape ``(frames, length)``, where frames is 1 + (samples − length) / step, rounded down
    (up with `pad`): a read-only view of the signal if nothing had to be added.

    Raises OptionError for a length or a step below 1.

    >>> fnn.data.frames(np.arange(6.0), 4, 2)
    array([[0., 1., 2., 3.],
           [2., 3., 4., 5.]])
    """
    x = as_signal(signal)
    if length < 1 or step < 1:
        raise OptionError(f"frames: expected length and step of 1 or more, got {length}, {step}")
    beyond = max(len(x) - length, 0)
    count = 1 + (-(-beyond // step) if pad else beyond // step)
    missing = (count - 1) * step + length - len(x)
    if missing > 0:
        x = np.concatenate([x, np.zeros(missing, x.dtype)])
    return np.lib.stride_tricks.sliding_window_view(x, length)[::step][:count]


def power_spectrum(pieces: ArrayLike, fft_size: int | None = None) -> Floats:
    """|FFT|² / fft_size of each piece, for the frequencies 0 to half the rate.

    Args:
        pieces: shape ``(frames, length)``.
        fft_size: points of the transform, `length` or more; by default the next power of two.

    Returns shape ``(frames, fft_size // 2 + 1)``. Bin k is the frequency k · rate / fft_size. By
    Parseval's theorem the sum over all fft_size bins (the inner ones count twice) is the sum of the
    squared samples.
    """
    x = np.asarray(pieces)
    size = _fft_size(x.shape[-1]) if fft_size is None else fft_size
    if size < x.shape[-1]:
        raise OptionError(f"fft_size: expected {x.shape[-1]} or more, got {size}")
    spectrum = np.fft.rfft(x, size)
    power: Floats = spectrum.real**2
    power += spectrum.imag**2
    power *= power.dtype.type(1 / size)
    return power


def to_mel(hertz: ArrayLike, scale: Scale = "htk") -> NDArray[np.float64]:
    """Frequencies on the mel scale.

    "htk": 2595 · log10(1 + f / 700) (O'Shaughnessy 1987; the HTK book). "slaney": f · 3 / 200 up to
    1,000 Hz, beyond that 15 + 27 · ln(f / 1000) / ln(6.4) (Slaney, Auditory Toolbox, 1998;
    librosa's default).
    """
    f = np.asarray(hertz, np.float64)
    if _scale(scale) == "htk":
        return np.asarray(2595 * np.log10(1 + f / 700))
    above = 15 + 27 * np.log(np.maximum(f, 1000) / 1000) / np.log(6.4)
    return np.asarray(np.where(f < 1000, f * 3 / 200, above))


def from_mel(mel: ArrayLike, scale: Scale = "htk") -> NDArray[np.float64]:
    """Frequencies in Hz: the inverse of `to_mel`."""
    m = np.asarray(mel, np.float64)
    if _scale(scale) == "htk":
        return np.asarray(700 * (10 ** (m / 2595) - 1))
    above = 1000 * np.exp((np.maximum(m, 15) - 15) * np.log(6.4) / 27)
    return np.asarray(np.where(m < 15, m * 200 / 3, above))


@lru_cache(maxsize=32)
def mel_filters(
    count: int,
    fft_size: int,
    rate: float,
    *,
    low: float = 0.0,
    high: float | None = None,
    scale: Scale = "htk",
    area: bool = False,
) -> NDArray[np.float64]:
    """Triangular filters whose centres are evenly spaced on the mel scale.

    Filter i rises from the centre of filter i − 1 to 1 at its own and falls to 0 at the centre of
    filter i + 1, linearly in Hz (Davis and Mermelstein 1980; librosa and torchaudio do the same,
    HTK's sides are straight in mel instead).

    Args:
        count: the number of filters.
        fft_size: points of the transform.
        rate: samples per second.
        low, high: the frequencies in Hz between which the filters lie; `high` is by default half
            the rate.
        scale: see `to_mel`.
        area: divide each filter by half its width in Hz, so that all have the area 1 (Slaney's
            normalisation, librosa's default).

    Returns shape ``(count, fft_size // 2 + 1)``, read-only.

    Raises OptionError if the frequencies are out of range, or if there are so many filters that one
    falls between two bins and is empty.
    """
    half = rate / 2
    high = half if high is None else high
    if count < 1 or not 0 <= low < high <= half:
        raise OptionError(
            f"mel filters: expected at least one, 0 <= low < high <= {half:g}, got {count}, "
            f"low={low:g}, high={high:g}"
        )
    ends = to_mel([low, high], scale)
    points = from_mel(np.linspace(ends[0], ends[1], count + 2), scale)  # (count + 2,)
    bins = np.arange(fft_size // 2 + 1) * (rate / fft_size)
    left, centre, right = points[:-2, None], points[1:-1, None], points[2:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    filters = np.maximum(0, np.minimum(rising, falling))
    if area:
        filters *= 2 / (right - left)
    empty = np.flatnonzero(filters.sum(axis=1) == 0)
    if len(empty):
        raise OptionError(
            f"mel filters: filter {empty[0]} of {count} lies between two of the {len(bins)} "
            "frequencies; take fewer filters or a larger fft_size"
        )
    filters.flags.writeable = False
    return filters


@lru_cache(maxsize=32)
def dct_matrix(count: int, size: int) -> NDArray[np.float64]:
    """The first `count` rows of the orthonormal cosine transform (DCT-II) of `size` numbers.

    Row k is √(2 / size) · cos(π · k · (n + ½) / size) for n = 0 … size − 1, row 0 divided by √2:
    the rows are orthonormal. Shape ``(count, size)``, read-only.
    """
    if not 1 <= count <= size:
        raise OptionError(f"dct_matrix: expected 1..{size} coefficients, got {count}")
    rows = np.cos(np.pi / size * np.outer(np.arange(count), np.arange(size) + 0.5))
    rows *= np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    rows.flags.writeable = False
    return rows


def lifter(cepstra: ArrayLike, size: float = 22) -> Floats:
    """Cepstra, shape ``(..., coefficients)``, times 1 + size / 2 · sin(π · k / size).

    It scales the higher coefficients, which are small, to about the size of the others (the HTK
    book, 5.4). Size 0 leaves them as they are.
    """
    x = as_floats(cepstra)
    if size <= 0:
        return x
    k = np.arange(x.shape[-1])
    return x * (1 + size / 2 * np.sin(np.pi * k / size)).astype(x.dtype)


def log_mel(
    signal: ArrayLike,
    rate: float,
    *,
    filters: int = 40,
    frame: float = 0.025,
    step: float = 0.010,
    emphasis: float = 0.97,
    window: Window = "hamming",
    fft_size: int | None = None,
    low: float = 0.0,
    high: float | None = None,
    scale: Scale = "htk",
    pad: bool = False,
) -> Features:
    """Logarithms of the energies in mel filters.

    Args:
        signal: shape ``(samples,)``.
        rate: samples a second.
        filters: the number of filters.
        frame, step: length of a frame and distance between frames, in seconds.
        emphasis: coefficient of the pre-emphasis; 0 for none.
        window: "hamming", "hann" or "none".
        fft_size: points of the transform; by default the smallest power of two that holds a frame,
            or twice that if the number of filters requires it.
        low, high, scale: see `mel_filters`.
        pad: see `frames`.

    Returns float32, shape ``(frames, filters)``.

    >>> log_mel(np.sin(np.arange(8000) / 3), rate=8000).shape
    (98, 40)
    """
    return _log_energies(
        signal, rate, filters, frame, step, emphasis, window, fft_size, low, high, scale, pad
    )[0].astype(np.float32, copy=False)


def mfcc(
    signal: ArrayLike,
    rate: float,
    *,
    coefficients: int = 13,
    filters: int = 26,
    lift: float = 22,
    energy: bool = False,
    frame: float = 0.025,
    step: float = 0.010,
    emphasis: float = 0.97,
    window: Window = "hamming",
    fft_size: int | None = None,
    low: float = 0.0,
    high: float | None = None,
    scale: Scale = "htk",
    pad: bool = False,
) -> Features:
    """Mel-frequency cepstral coefficients: the cosine transform of `log_mel`.

    Args:
        coefficients: number of coefficients, including the 0th.
        filters: the number of mel filters.
        lift: see `lifter`; 0 for none.
        energy: replace the 0th coefficient by the logarithm of the frame's energy.
        signal, rate, frame, step, emphasis, window, fft_size, low, high, scale, pad: see `log_mel`.

    Returns float32, shape ``(frames, coefficients)``.

    Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word
    recognition in continuously spoken sentences", IEEE Transactions on Acoustics, Speech and Signal
    Processing 28 (4), 1980. HTK scales the transform by √(2 / filters) for the 0th coefficient too;
    here it is orthonormal, as in librosa and python_speech_features.

    >>> cepstra = mfcc(np.sin(np.arange(8000) / 3), rate=8000)
    >>> cepstra.shape, cepstra.dtype
    ((98, 13), dtype('float32'))
    """
    logs, total = _log_energies(
        signal, rate, filters, frame, step, emphasis, window, fft_size, low, high, scale, pad
    )
    cepstra = lifter(logs @ dct_matrix(coefficients, filters).T.astype(logs.dtype), lift)
    if energy:
        cepstra[:, 0] = total
    return cepstra.astype(np.float32, copy=False)


def _log_energies(
    signal: ArrayLike,
    rate: float,
    filters: int,
    frame: float,
    step: float,
    emphasis: float,
    window: Window,
    fft_size: int | None,
    low: float,
    high: float | None,
    scale: Scale,
    pad: bool,
) -> tuple[Floats, Floats]:
    """Logarithms of the filters' energies, ``(frames, filters)``, and of all, ``(frames,)``."""
    length = round(frame * rate)
    x = pre_emphasis(signal, emphasis) if emphasis else as_signal(signal)
    pieces = frames(x, length, round(step * rate), pad=pad)
    if window != "none":
        pieces = pieces * _window(window, length).astype(x.dtype)
    size = _fft_size(length) if fft_size is None else fft_size
    try:
        bank = mel_filters(filters, size, rate, low=low, high=high, scale=scale)
    except OptionError:
        if fft_size is not None:
            raise
        size *= 2
        bank = mel_filters(filters, size, rate, low=low, high=high, scale=scale)
    power = power_spectrum(pieces, size)
    energies = power @ bank.T.astype(power.dtype)
    return _log(energies), _log(power.sum(axis=1))


def _scale(scale: str) -> str:
    if scale not in get_args(Scale):
        raise OptionError(f"scale: expected 'htk' or 'slaney', got {scale!r}")
    return scale


def _fft_size(length: int) -> int:
    return 1 << max(length - 1, 1).bit_length()


@lru_cache(maxsize=32)
def _window(name: str, length: int) -> NDArray[np.float64]:
    if name == "hamming":
        return np.hamming(length)
    if name == "hann":
        return np.hanning(length)
    raise OptionError(f"window: expected one of {', '.join(get_args(Window))}, got {name!r}")


def _log(energies: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(energies, energies.dtype.type(FLOOR))))
