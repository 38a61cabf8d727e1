"""Reading audio files into waveforms."""

from __future__ import annotations

import io
import os
import re
import struct
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastnn import files
from fastnn.data.signals import as_signal, check_rate
from fastnn.errors import DataError

#: bytes that a compressed file may always expand to, and how many times it may expand beyond
_ALWAYS, _TIMES = 1 << 26, 200
#: samples that are decoded at a time
_PIECE = 1 << 18


def read_audio(
    path: str | os.PathLike[str], *, rate: int | None = None
) -> tuple[NDArray[np.float32], int]:
    """Read an audio file: its samples, and their number per second.

    WAV files of 8, 16, 24 and 32-bit integers are read by the standard library; all others (FLAC,
    Ogg, WAV with floats) by soundfile, if it is installed.

    Args:
        path: the file.
        rate: the samples a second that are expected; other files are refused.

    Returns float32 in [-1, 1), shape ``(samples,)`` for one channel and ``(samples, channels)`` for
    several.

    Raises DataError if the file cannot be read, has another rate, or samples that are not finite.
    """
    path = files.as_path(path)
    samples, found = _read(path)
    if rate is not None:
        check_rate(found, rate, str(path))
    if samples.size and not np.isfinite(samples).all():
        as_signal(samples.reshape(-1), str(path))  # says where
    return samples, found


def _read(path: Path) -> tuple[NDArray[np.float32], int]:
    content = files.read_bytes(path, "audio file")
    try:
        with wave.open(io.BytesIO(content)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            announced = file.getnframes() * channels
            samples = file.readframes(file.getnframes())
    except (wave.Error, EOFError, struct.error, ValueError, ArithmeticError, RuntimeError) as error:
        return _read_other(path, content, error)
    if width not in (1, 2, 3, 4):
        raise DataError(f"{path}: expected samples of 1 to 4 bytes, got {width}")
    if rate < 1 or channels < 1:
        raise DataError(
            f"{path}: expected channels and a rate from 1, got {channels} and {rate}; is it "
            "damaged?"
        )
    if len(samples) != announced * width:
        raise DataError(
            f"{path}: expected {announced:,} samples, got {len(samples) // width:,}; is it "
            "truncated?"
        )
    found = _from_bytes(samples, width)
    return (found if channels == 1 else found.reshape(-1, channels)), rate


def _from_bytes(content: bytes, width: int) -> NDArray[np.float32]:
    scale = np.float32(2.0 ** (1 - 8 * width))
    if width == 1:  # unsigned, unlike the others
        return (np.frombuffer(content, np.uint8).astype(np.float32) - 128) * scale
    if width == 3:
        filled = np.zeros((len(content) // 3, 4), np.uint8)
        filled[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        return (filled.reshape(-1).view("<i4") >> 8).astype(np.float32) * scale
    return np.frombuffer(content, f"<i{width}").astype(np.float32) * scale


def _read_other(path: Path, content: bytes, reason: Exception) -> tuple[NDArray[np.float32], int]:
    """What soundfile reads, a piece at a time, so that a header can't claim more than there is."""
    try:
        import soundfile
    except ImportError:
        raise DataError(
            f"{path}: not a WAV file of integers ({reason}); soundfile reads other formats: "
            "pip install soundfile"
        ) from None
    most = max(_ALWAYS, _TIMES * len(content)) // 4
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate, channels, pieces, count = int(file.samplerate), int(file.channels), [], 0
            if not (0 < channels <= 1024 and rate > 0):
                raise DataError(f"{path}: it has {channels} channels and the rate {rate}")
            while len(piece := file.read(_PIECE // channels, dtype="float32", always_2d=True)):
                pieces.append(piece)
                count += piece.size
                if count > most:
                    raise DataError(
                        f"{path}: it expands to more than {most:,} samples, {_TIMES} times its "
                        "size; cut it into pieces"
                    )
    except (
        soundfile.SoundFileError, ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError,
        OSError,
    ) as error:  # fmt: skip
        if isinstance(error, DataError):
            raise
        # soundfile names what it read from, an object in memory
        found = re.sub(r"^Error opening <.*?>: ", "", files.one_line(error)).rstrip(".")
        raise DataError(f"{path}: {found}; is it an audio file?") from None
    samples = np.concatenate(pieces) if pieces else np.zeros((0, channels), np.float32)
    return (samples[:, 0] if channels == 1 else samples), rate
