"""MNIST: 70,000 handwritten digits, 28×28 pixels."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

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
    int64, shape ``(N,)``. As they are, the images are sequences of 28 rows of 28 pixels for
    recurrent nets; ``x.reshape(len(x), 784)`` are rows of pixels for other nets.

    Args:
        dtype: "float32" for pixels in [0, 1] (188 MB for the training images), "uint8" for pixels
            in 0..255 (47 MB).
        folder: a folder with four files of MNIST's format and names, read unchecked (for
            Fashion-MNIST and the like); by default see `fastnn.data.sources`.
        download: whether 11.6 MB may be downloaded where this machine has no copy.

    Raises:
        DataError: the files are not those of MNIST, or not in its format.
        DownloadError: there is no copy and the download failed.

    Licence: none stated. LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to
    document recognition", Proceedings of the IEEE 86 (11), 1998.

    >>> (x_train, y_train), (x_test, y_test) = load_mnist(dtype="uint8")
    >>> x_train.shape, y_train[:5].tolist()
    ((60000, 28, 28), [5, 0, 4, 1, 9])
    """
    if dtype not in ("float32", "uint8"):
        raise OptionError(f"dtype: expected 'float32' or 'uint8', got {dtype!r}")
    home = sources.find(sources.MNIST, folder=folder, download=download)
    parts = []
    for part in ("train", "t10k"):
        images = read_idx(home / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(home / f"{part}-labels-idx1-ubyte.gz").astype(np.int64)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{home}, {part}: expected images (N, rows, columns) and labels (N,), got "
                f"{images.shape} and {labels.shape}"
            )
        if dtype == "float32":
            images = np.multiply(images, np.float32(1 / 255), dtype=np.float32)
        parts.append((images, labels))
    return parts[0], parts[1]


def read_idx(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The array of bytes in a file of MNIST's format, compressed by gzip or not.

    The format: two zero bytes, the element type (8: unsigned byte), the number of dimensions, each
    dimension as a big-endian 32-bit integer, the elements in C order.

    Raises DataError where the file is no such file.
    """
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: cannot be decompressed ({error})") from None
    if content[:3] != b"\0\0\x08" or len(content) < 4:
        raise DataError(f"{path}: expected an idx file of bytes, got one that begins otherwise")
    start = 4 + 4 * content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    elements = np.frombuffer(content, np.uint8)[start:]
    if len(shape) != content[3] or len(elements) != np.prod(shape, dtype=np.int64):
        raise DataError(f"{path}: expected {shape} bytes, got {len(elements):,}; is it truncated?")
    return elements.reshape(shape)
