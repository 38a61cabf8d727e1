"""What users hand in as data, checked and made ready for the compiled loop."""

from __future__ import annotations

import array as stdlib_array
import functools
import mmap
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.engine.specs import Spec
from fastnn.errors import DataError, refuse_masked
from fastnn.graph.node import Range
from fastnn.runtime.cuda import array as device
from fastnn.runtime.interface import Bound

#: element types that the gather kernels read directly
READABLE = {
    "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "bool",
}  # fmt: skip
SMALL = ("uint8", "bool")
#: an element type's name, which NumPy puts together anew each time that it is asked
name_of = functools.cache(lambda dtype: dtype.name)
#: attributes of what can be made an array
_PROTOCOLS = ("__array__", "__array_interface__", "__cuda_array_interface__", "__dlpack__")


def is_array(data: Any) -> bool:
    """Whether this is an array of some library, with at least one dimension.

    >>> is_array(np.zeros(3)), is_array(memoryview(b"abc")), is_array([1, 2])
    (True, True, False)
    """
    if isinstance(data, (np.ndarray, device.DeviceArray)):
        return data.ndim > 0
    if isinstance(data, (memoryview, stdlib_array.array)):
        return True
    if isinstance(data, (list, tuple, Mapping, str, bytes, np.generic, type)):
        return False
    if any(hasattr(data, name) for name in _PROTOCOLS):
        return getattr(data, "ndim", 1) != 0
    return False


@dataclass
class Arrays:
    """Inputs or targets: arrays of equal length with their specs.

    An array may lie on a CUDA device (`fastnn/runtime/cuda/array.py`); checks copy it to the
    host, once.
    """

    arrays: list[Any]
    specs: tuple[Spec, ...]
    names: list[str]

    def __len__(self) -> int:
        return len(self.arrays[0]) if self.arrays else 0

    def sources(self) -> dict[str, Any]:
        """Memory segments for the gather: each array as rows, C-contiguous, not copied if it is."""
        return {
            f"data/{name}": (np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a).reshape(
                len(a), -1
            )
            for name, a in zip(self.names, self.arrays, strict=True)
        }

    def on_host(self) -> Arrays:
        """The same as NumPy arrays: those on a device are copied."""
        return Arrays([np.asarray(a) for a in self.arrays], self.specs, self.names)

    def with_specs(self, specs: tuple[Spec, ...]) -> Arrays:
        """The same arrays, understood otherwise."""
        return self if specs is self.specs else Arrays(self.arrays, specs, self.names)

    def described(self) -> Arrays:
        """The same without the arrays."""
        return Arrays([], self.specs, self.names)

    def write(self, bound: Bound) -> None:
        """Write them into the inputs of a program that the host feeds."""
        for name, array in zip(self.names, self.arrays, strict=True):
            bound.write(name, array)

    def take(self, rows: Any) -> Arrays:
        """The same for some of the samples."""
        return Arrays([a[rows] for a in self.arrays], self.specs, self.names)


def as_arrays(data: Any, prefix: str, what: str, several: bool = True) -> Arrays:
    """Check inputs (`prefix` "x"), targets ("y") or sample weights ("w") and find their specs.

    Args:
        data: an array of any library that NumPy understands (`__array__`, the buffer protocol,
            DLPack), nested lists of numbers, or a tuple, list or dict of arrays for several.
        prefix: name of the inputs in the graph.
        what: what error messages call it.
        several: whether a list of arrays means several, and not the rows of one.
    """
    keys: list[str] = []
    if isinstance(data, Mapping):
        keys, parts = [str(key) for key in data], list(data.values())
    elif isinstance(data, tuple) or (
        several and isinstance(data, list) and data and all(is_array(item) for item in data)
    ):
        parts = list(data)
    else:
        parts = [data]
    if not parts:
        raise DataError(f"{what}: expected at least one array, got an empty {type(data).__name__}")
    labels = keys or [str(k) for k in range(len(parts))]
    alone = len(parts) == 1 and not keys
    arrays = [
        _as_array(a, what if alone else f"{what}[{label}]")
        for label, a in zip(labels, parts, strict=True)
    ]
    lengths = {len(a) for a in arrays}
    if len(lengths) > 1:
        if not isinstance(data, (tuple, Mapping)) and len(arrays) > len(lengths) > 2:
            raise DataError(f"{what}: {_ragged(lengths)}")
        few = [len(a) for a in arrays[:8]]
        raise DataError(
            f"{what}: expected arrays of equal length, got {str(few)[:-1]}"
            + (", ...]" if len(arrays) > len(few) else "]")
        )
    if 0 in lengths:
        raise DataError(f"{what}: expected at least one sample, got none")
    specs = tuple(
        _spec(a, prefix, key) for a, key in zip(arrays, keys or [""] * len(arrays), strict=True)
    )
    return Arrays(arrays, specs, [f"{prefix}{k}" for k in range(len(arrays))])


def _as_array(data: Any, what: str) -> Any:
    refuse_masked(data, what)
    if not isinstance(data, np.ndarray) and device.on_device(data):
        array: Any = device.as_device_array(data, what)
        if array.dtype == np.float16 or array.dtype.name not in READABLE:
            array = np.asarray(array)  # converted, or refused, below
    else:
        array = _on_host(data, what)
    if array.ndim == 0:
        raise DataError(f"{what}: expected an array with one row for each sample, got one number")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype == np.longdouble and name_of(array.dtype) not in READABLE:
        array = array.astype(np.float64)
    if name_of(array.dtype) not in READABLE:
        if (lengths := _lengths(data)) is not None:
            raise DataError(f"{what}: {_ragged(lengths)}")
        raise DataError(
            f"{what}: expected numbers, got element type {array.dtype}; convert with "
            "astype(np.float32) (features) or astype(np.int64) (ids, classes)"
        )
    return array


def _on_host(data: Any, what: str) -> np.ndarray:
    """A NumPy array of whatever can be seen as one, not copied if need not be."""
    if type(data) is np.ndarray:
        return data
    if isinstance(data, np.memmap):
        return data
    if isinstance(data, (str, bytes, type)) or data is None:
        raise DataError(f"{what}: expected an array of numbers, got {type(data).__name__}")
    if callable(data) and not any(hasattr(data, n) for n in ("__array__", "__dlpack__")):
        raise DataError(
            f"{what}: expected an array of numbers, got the function "
            f"{getattr(data, '__name__', data)!r}; call it, and pass what it returns"
        )
    if hasattr(data, "toarray") and not hasattr(data, "__array__"):
        raise DataError(
            f"{what}: expected a dense array, got {type(data).__name__}; convert it with toarray()"
        )
    if getattr(data, "requires_grad", False) and hasattr(data, "detach"):
        data = data.detach()  # PyTorch gives no array of what it differentiates
    try:
        if hasattr(data, "__dlpack__") and not hasattr(data, "__array__"):
            return np.from_dlpack(data)
        return np.asarray(data)
    except Exception as error:  # of whatever library the array is
        if (lengths := _lengths(data)) is not None:
            raise DataError(f"{what}: {_ragged(lengths)}") from None
        raise DataError(
            f"{what}: cannot make an array of {type(data).__name__} "
            f"({' '.join(str(error).split())[:200]}); expected a rectangular array of numbers"
        ) from None


def _lengths(data: Any) -> set[int] | None:
    """The lengths of the rows, where they are sequences of different ones."""
    rows = data if isinstance(data, (list, tuple)) else list(data) if is_objects(data) else []
    if not all(isinstance(row, (list, tuple)) or is_array(row) for row in rows):
        return None
    lengths = {len(row) for row in rows}
    return lengths if len(lengths) > 1 else None


def is_objects(data: Any) -> bool:
    """Whether this is an array of Python objects."""
    return isinstance(data, np.ndarray) and data.dtype == object and data.ndim == 1


def _ragged(lengths: set[int]) -> str:
    return (
        f"expected a rectangular array, got lengths from {min(lengths)} to {max(lengths)}; pad "
        "them with fastnn.data.pad and give their lengths to the model, or let fastnn.data.Buckets "
        "make batches of them"
    )


def _spec(array: Any, prefix: str, key: str = "") -> Spec:
    """Small unsigned integers and bool may be numbers or ids: the model or the loss decides."""
    shape, integer = tuple(array.shape[1:]), array.dtype.kind in "iub"
    if prefix == "w":
        return Spec(shape, "f", key)
    if name_of(array.dtype) in SMALL:
        return Spec(shape, "f" if prefix == "x" else "i", key, small=True)
    return Spec(shape, "i" if integer else "f", key)


class Hold:
    """Arrays that a run reads: nobody shortens them meanwhile.

    NumPy refuses to resize an array that something refers to weakly, which these do. A file mapped
    into memory can't be held; `check` looks whether it still has its size.
    """

    def __init__(self, *data: Arrays):
        self._held: list[weakref.ref[np.ndarray]] = []
        self._mapped: list[tuple[mmap.mmap, int]] = []
        for part in data:
            for array in part.arrays:
                if isinstance(array, np.ndarray):
                    self._hold(array)

    def _hold(self, array: np.ndarray) -> None:
        """Hold an array, and those that it is a view of."""
        link: Any = array
        while isinstance(link, np.ndarray):
            self._held.append(weakref.ref(link))
            link = link.base
        if link is None:
            return
        source = link.obj if isinstance(link, memoryview) else link
        if isinstance(source, mmap.mmap):
            self._mapped.append((source, _size(source)))

    def check(self) -> None:
        """Raise DataError where a mapped file is shorter than at first: reading on would end the
        process."""
        for source, size in self._mapped:
            if _size(source) < size:
                raise DataError(
                    f"a memory-mapped file of the data has been shortened from {size:,} to "
                    f"{_size(source):,} bytes since the run began; map it again, and don't write "
                    "to it while it is read"
                )


def _size(source: mmap.mmap) -> int:
    try:
        return source.size()
    except (OSError, ValueError):  # not of a file, or closed
        return 0


def check_lengths(x: Arrays, y: Arrays, what: str = "data") -> None:
    if y.arrays and len(x) != len(y):
        raise DataError(
            f"{what}: expected as many targets as inputs, got {len(x)} inputs and {len(y)} targets"
        )


def check_ranges(arrays: Arrays, ranges: Sequence[tuple[str, Range]]) -> None:
    """Every integer within what the layer or loss that reads it allows."""
    for name, limits in ranges:
        if name not in arrays.names:
            continue
        values = np.asarray(arrays.arrays[arrays.names.index(name)])
        # the functions behind `min` and `max`, which cost small arrays half as much
        least = int(np.minimum.reduce(values, axis=None))
        most = int(np.maximum.reduce(values, axis=None))
        if limits.low <= least and most < limits.high:
            continue
        wrong = (values < limits.low) | (values >= limits.high)
        if limits.ignored is not None:
            wrong &= values != limits.ignored
        if wrong.any():
            got, labels = int(values[wrong].flat[0]), name[0] != "x"
            who = f"{limits.scope!r} expects" if limits.scope else "expected"
            if limits.steps:
                some = ", at least one step" if limits.low else ""
                remedy = (
                    "pad the sequences to the longest one's length, or cut the lengths"
                    if got >= limits.high or got < 0
                    else "leave such samples out"
                )
                raise DataError(
                    f"inputs: {who} lengths in {limits.low}..{limits.high - 1}, the steps of its "
                    f"sequences{some}, got {got}; {remedy}"
                )
            remedy = "make the layer larger" if got >= 0 else "count from 0"
            if labels and got < 0:
                remedy = f"give the loss ignore_index={got} if such rows are not to count"
            if not labels and limits.scope == "loss":
                remedy = "pass targets (y): without them the inputs are the targets"
            raise DataError(
                f"{'targets' if labels else 'inputs'}: {who} integers in "
                f"{limits.low}..{limits.high - 1}, got {got}; check the data, or {remedy}"
            )


def check_rules(
    data: Sequence[Arrays], checks: Sequence[tuple[tuple[str, ...], Callable[..., None]]]
) -> None:
    """What arrays have to be together."""
    found = {n: a for part in data for n, a in zip(part.names, part.arrays, strict=True)}
    for names, rule in checks:
        if all(name in found for name in names):
            rule(*(np.asarray(found[name]) for name in names))


def check_finite(arrays: Arrays, what: str, dtype: str) -> None:
    """No NaN or infinity, nor what is infinite in the element type that it is computed in."""
    for given, name in zip(arrays.arrays, arrays.names, strict=True):
        array = np.asarray(given)
        if array.dtype.kind != "f":
            continue
        if not np.logical_and.reduce(np.isfinite(array), axis=None):
            rows = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
            raise DataError(
                f"{what} ({name}): NaN or infinity in {len(rows)} samples, the first is sample "
                f"{rows[0]}; clean the data, or pass check_data=False"
            )
        if array.itemsize <= np.dtype(dtype).itemsize:
            continue
        limit = float(np.finfo(dtype).max)
        if max(float(array.max()), -float(array.min())) > limit:
            raise DataError(
                f"{what} ({name}): expected numbers within {dtype}'s range, +-{limit:.3g}, got "
                f"{np.abs(array).max():.3g}; scale the data, or use dtype='float64'"
            )


def check_weights(weights: Arrays, x: Arrays, dtype: str) -> None:
    """Sample weights that can be used: as many as samples, finite, not negative, and neither
    infinite nor 0 in the element type that they are used in unless they are 0."""
    if len(weights) != len(x):
        raise DataError(
            f"sample_weight: expected one for each of {len(x)} samples, got {len(weights)}"
        )
    for given in weights.arrays:
        array = np.asarray(given)
        if not (np.isfinite(array).all() and (array >= 0).all()):
            wrong = array[~(np.isfinite(array) & (array >= 0))]
            raise DataError(
                f"sample_weight: expected finite numbers >= 0, got {wrong.flat[0]}; a weight of 0 "
                "leaves a sample out"
            )
        limits = np.finfo(dtype)
        wrong = array[(array > limits.max) | ((array > 0) & (array < limits.tiny))]
        if wrong.size:
            raise DataError(
                f"sample_weight: expected 0, or numbers within {dtype}'s range ({limits.tiny:.3g} "
                f"to {limits.max:.3g}), got {wrong.flat[0]:.3g}; scale the weights"
            )


def check_some_count(weights: Arrays, what: str) -> None:
    """Not all sample weights are 0: DataError says of what they are."""
    if weights.arrays and not any(np.any(np.asarray(given)) for given in weights.arrays):
        raise DataError(
            f"sample_weight: expected some numbers > 0 for the {what}, got {len(weights)} times 0; "
            "a weight of 0 leaves a sample out"
        )


NO_ARRAYS = Arrays([], (), [])
