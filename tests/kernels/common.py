"""Runs a kernel in every way that has to agree, for the tests of this folder."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import numpy as np

from fastnn.kernels.declare import KERNELS, Array
from fastnn.kernels.types import LETTERS, storage
from fastnn.testing.kernels import call

EDGES = [1, 2, 15, 16, 17, 31, 32, 33, 127, 128, 129]
#: (rows, columns) with each edge in either place
SHAPES = [(3, n) for n in EDGES] + [(n, 5) for n in EDGES]
SMALL = [(1, 1), (2, 3), (3, 16), (4, 17)]
DTYPES = [np.float32, np.float64]
GUARD = 64  # elements around an output that must stay as they were


def close(got: Any, want: Any, dtype: Any, factor: float = 1.0) -> None:
    """Equal up to the rounding of `dtype`, with `factor` times the usual room."""
    rtol = factor * (4e-6 if dtype == np.float32 else 1e-13)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


def poisoned(shape: tuple[int, ...], dtype: Any, byte: int) -> tuple[np.ndarray, np.ndarray]:
    """An array filled with `byte`, and the larger buffer that it lies in."""
    size = int(np.prod(shape))
    buffer = np.full((size + 2 * GUARD) * np.dtype(dtype).itemsize, byte, np.uint8).view(dtype)
    return buffer[GUARD : GUARD + size].reshape(shape), buffer


def hidden(parameter: Any, array: Any, lo: int, hi: int) -> Any:
    """A copy of an operand with NaN (or nonsense) in the rows that items lo to hi must not read."""
    if not isinstance(parameter, Array) or parameter.axis != "rows" or array.size == 0:
        return array
    copy = np.full_like(array, np.nan if array.dtype.kind == "f" else 1 << 40)
    copy[lo:hi] = array[lo:hi]
    return copy


def compute(
    name: str, dtype: Any, out: dict[str, tuple[int, ...]], **operands: Any
) -> dict[str, np.ndarray]:
    """Outputs of kernel `name`: whole, in random ranges, and (small ones) as plain Python.

    `out` gives the outputs' shapes; `inout` and `part` operands are copied and returned
    too.
    Asserts that the ranges give the same bits, that plain Python agrees, that poison is
    overwritten and that nothing else is.
    """
    kernel = KERNELS[name]
    types = {letter: storage(letter, np.dtype(dtype).name) or None for letter in LETTERS}
    fixed, inout = {}, {}
    for key, parameter in kernel.params.items():
        if key in out:
            continue
        value = operands.pop(key)
        if isinstance(parameter, Array):
            value = np.ascontiguousarray(value, types.get(parameter.dtype))
        if isinstance(parameter, Array) and parameter.mode in ("inout", "part", "flag"):
            inout[key] = value
        else:
            fixed[key] = value
    assert not operands, f"{name} doesn't take {list(operands)}"
    sizes = {key: np.shape(value) for key, value in {**fixed, **inout}.items()} | out
    letters = {
        letter: size
        for key, p in kernel.params.items()
        if isinstance(p, Array)
        for letter, size in zip(p.dims, sizes[key], strict=True)
    }
    items = letters[kernel.items] if kernel.items else 1
    rng = np.random.default_rng(zlib.crc32(f"{name}{letters}".encode()))

    def once(byte: int, cuts: list[int], compiled: bool = True) -> dict[str, np.ndarray]:
        changed = {key: value.copy() for key, value in inout.items()}
        buffers = {}
        for key, shape in out.items():
            changed[key], buffers[key] = poisoned(shape, types[kernel.params[key].dtype], byte)
        guards = {key: b.copy() for key, b in buffers.items()}
        for lo, hi in itertools.pairwise(cuts):
            if compiled:
                given = {k: hidden(kernel.params[k], v, lo, hi) for k, v in fixed.items()}
                call(kernel, int(lo), int(hi), **given, **changed)
            else:
                with np.errstate(all="ignore"):
                    kernel(**fixed, **changed, **({"lo": lo, "hi": hi} if kernel.items else {}))
        for key, buffer in buffers.items():
            for part in (slice(None, GUARD), slice(-GUARD, None)):
                assert buffer[part].tobytes() == guards[key][part].tobytes(), f"{key}: overrun"
        return changed

    whole = once(0xFF, [0, items])
    if kernel.items:
        for byte in (0x00, 0xFF):
            inner = rng.integers(0, items + 1, min(items, 4))
            pieces = once(byte, [0, *sorted(inner.tolist()), items])
            for key, value in whole.items():
                assert value.tobytes() == pieces[key].tobytes(), f"{key}: ranges change the bits"
    if sum(v.size for v in [*fixed.values(), *whole.values()] if isinstance(v, np.ndarray)) < 1500:
        python = once(0xFF, [0, items], compiled=False)
        for key, value in whole.items():
            close(python[key], value, dtype, factor=5)
    return whole
