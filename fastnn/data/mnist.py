"""MNIST: 70,000 handwritten digits, 28×28 pixels."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn import files
from fastnn.data import sources
from fastnn.errors import DataError, OptionError

Split: TypeAlias = tuple[NDArray[Any], NDArray[np.int64]]


def load_mnist(
    *,
    dtype: Literal["float32", "uint8"] = "float32",
    folder: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> tuple[Split, Split]:
    """60,000 images of handwritten digits for training and 10,000 for testing.

    Returns ``(x_train, y_train), (x_test, y_test)``: images, shape ``(N, 28, 28)``, and labels,
    int64, shape ``(N,)``. For recurrent nets the images are sequences of 28 rows of 28 pixels; for
    other nets ``x.reshape(len(x), 784)`` makes each a row of pixels.

    Args:
        dtype: "float32" for pixels in [0, 1] (188 MB for the training images), "uint8" for pixels
            in 0..255 (47 MB).
        folder: a folder with four files of MNIST's format and names, read unchecked (for
            Fashion-MNIST and the like); by default see `fastnn.data.sources`.
        download: whether 11.6 MB may be downloaded if this machine has no copy.

    Raises:
        DataError: the files are not those of MNIST, or not in its format.
        DownloadError: there is no copy and the download failed.
        OptionError: another `dtype`.

    Licence: none stated. LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to
    document recognition", Proceedings of the IEEE 86 (11), 1998.

    >>> (x_train, y_train), (x_test, y_test) = load_mnist(dtype="uint8")
    >>> x_train.shape, y_train[:5].tolist()
    ((60000, 28, 28), [5, 0, 4, 1, 9])
    """
    if dtype not in ("float32", "uint8"):
        raise OptionError(f"dtype: expected 'float32' or 'uint8', got {dtype!r}")
    found = sources.find(sources.MNIST, folder=folder, download=download)
    parts = []
    for part in ("train", "t10k"):
        images = read_idx(found / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(found / f"{part}-labels-idx1-ubyte.gz").astype(np.int64)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{found}, {part}: expected images (N, rows, columns) and labels (N,), got "
                f"{images.shape} and {labels.shape}"
            )
        if dtype == "float32":
            images = np.multiply(images, np.float32(1 / 255), dtype=np.float32)
        parts.append((images, labels))
    return parts[0], parts[1]


#: bytes that a compressed file may always expand to, and how many times it may expand beyond
_ALWAYS, _TIMES = 1 << 26, 200
_BLOCK = 1 << 20


def read_idx(path: str | os.PathLike[str], *, most: int | None = None) -> NDArray[np.uint8]:
    """The array of bytes in a file of MNIST's format, compressed by gzip or not.

    The format: two zero bytes, the element type (8: unsigned byte), the number of dimensions, each
    dimension as a big-endian 32-bit integer, the elements in C order.

    Args:
        path: the file.
        most: the most bytes that a compressed file may expand to; by default 64 MiB or 200 times
            the size of the file, whichever is larger.

    Raises DataError if the file has another format, or expands to more.
    """
    path = files.as_path(path)
    size = files.regular(path, "idx file")
    if most is None:
        most = max(_ALWAYS, _TIMES * size)
    remedy = "check its permissions"
    with files.told(f"idx file {str(path)!r} cannot be read", remedy), path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            return _read(raw, path, size, False)
        try:
            with gzip.open(raw) as source:
                return _read(source, path, most, True)
        except (gzip.BadGzipFile, EOFError, zlib.error, struct.error) as error:
            raise DataError(f"{path}: cannot be decompressed ({error}); get it again") from None


def _read(source: Any, path: Path, most: int, packed: bool) -> NDArray[np.uint8]:
    """An idx array; no more is read than its header announces, and that no more than `most`."""
    head = source.read(4)
    if head[:3] != b"\0\0\x08" or len(head) < 4:
        source.read(_BLOCK)  # says so where it is the compression that is damaged
        raise DataError(
            f"{path}: expected an idx file of bytes, got a file that does not begin like one"
        )
    dimensions = source.read(4 * head[3])
    if len(dimensions) < 4 * head[3]:
        raise DataError(f"{path}: expected {head[3]} dimensions; is the file truncated?")
    shape = tuple(int(n) for n in np.frombuffer(dimensions, ">u4"))
    count = math.prod(shape)
    if len(shape) > 32:
        raise DataError(f"{path}: expected at most 32 dimensions, got {len(shape)}")
    if count > most:
        remedy = "pass most= if that is right" if packed else "is it truncated?"
        raise DataError(f"{path}: expected {shape} bytes, more than {most:,}; {remedy}")
    elements = bytearray()
    while len(elements) <= count and (block := source.read(min(_BLOCK, count + 1 - len(elements)))):
        elements += block
    if len(elements) != count:
        got = f"{len(elements):,}" if len(elements) < count else "more"
        raise DataError(f"{path}: expected {shape} bytes, got {got}; is it truncated?")
    return np.frombuffer(elements, np.uint8).reshape(shape)
