"""Arrays that lie on a CUDA device: CuPy's, PyTorch's, ..., in and out without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.errors import DataError
from fastnn.runtime import _cuda
from fastnn.runtime.cuda.place import Piece, Place
from fastnn.runtime.segment import Segment

#: DLPack's number for CUDA devices
KDL_CUDA = 2


def _gpu(name: str) -> Any:
    """The device of this name; what drives it is imported where there is such an array."""
    from fastnn.runtime.cuda.gpu import gpu

    return gpu(name)


def on_device(data: Any) -> bool:
    """Whether this is an array on a CUDA device."""
    if isinstance(data, (np.ndarray, list, tuple, int, float)):
        return False
    if isinstance(data, DeviceArray) or hasattr(data, "__cuda_array_interface__"):
        return True
    where = getattr(data, "__dlpack_device__", None)
    return where is not None and int(where()[0]) == KDL_CUDA


def as_device_array(data: Any, what: str) -> DeviceArray:
    """A `DeviceArray` for anything that `on_device` says yes to; not copied.

    Raises DataError where it is not C-contiguous.
    """
    if isinstance(data, DeviceArray):
        return data
    if not hasattr(data, "__cuda_array_interface__"):
        view = _cuda.core().utils.StridedMemoryView.from_dlpack(data, -1)
        _gpu(f"cuda:{view.device_id}").synchronize()  # whoever made it may still be writing
        size = np.dtype(view.dtype).itemsize
        strides = None if view.strides is None else tuple(s * size for s in view.strides)
        return _contiguous(
            int(view.ptr), tuple(view.shape), view.dtype, strides, view, view.device_id, what
        )
    seen = data.__cuda_array_interface__
    number = _number_of(data)
    _gpu(f"cuda:{number}").synchronize()
    return _contiguous(
        int(seen["data"][0]), tuple(seen["shape"]), np.dtype(seen["typestr"]),
        seen.get("strides"), data, number, what,
    )  # fmt: skip


def _number_of(data: Any) -> int:
    """The number of the device that an array lies on, as its library says it."""
    device = getattr(data, "device", None)  # CuPy: .id; PyTorch: .index
    for name in ("id", "index"):
        if isinstance(getattr(device, name, None), int):
            return int(getattr(device, name))
    return 0


def _contiguous(
    address: int, shape: tuple[int, ...], dtype: Any, strides: Any, owner: Any, number: int,
    what: str,
) -> DeviceArray:  # fmt: skip
    array = DeviceArray(address, shape, np.dtype(dtype), owner, number)
    if strides is not None:
        step = array.dtype.itemsize
        for extent, stride in zip(reversed(shape), reversed(tuple(strides)), strict=True):
            if extent > 1 and stride != step:
                raise DataError(
                    f"{what}: expected a C-contiguous array on the device, got strides {strides} "
                    f"for shape {shape}; make it contiguous first (cupy.ascontiguousarray, "
                    "Tensor.contiguous)"
                )
            step *= extent
    return array


class DeviceArray:
    """A C-contiguous array on a CUDA device, of this `shape` and `dtype`: it begins at an `address`
    of device `number`, in memory that lives as long as its `owner`.

    `cupy.asarray(it)`, `torch.as_tensor(it)` and `from_dlpack` of either see the same memory;
    `np.asarray(it)` copies it to the host.

    An index that is not a range of neighbouring samples raises DataError.
    """

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], owner: Any, number: int
    ):
        self.address, self.shape, self.dtype = address, shape, dtype
        self.owner, self.number = owner, number
        self._host: np.ndarray | None = None

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: int) -> DeviceArray:
        """The same memory under another shape; -1 for what is left."""
        known = int(np.prod([n for n in shape if n >= 0], dtype=np.int64))
        size = self.nbytes // self.dtype.itemsize
        full = tuple(size // max(known, 1) if n < 0 else n for n in shape)
        return DeviceArray(self.address, full, self.dtype, self.owner, self.number)

    def __getitem__(self, rows: slice) -> DeviceArray:
        """Some of the samples, one after the other."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise DataError("an array on a device is cut into neighbouring samples only")
        row = self.nbytes // max(len(self), 1)
        shape = (max(stop - start, 0), *self.shape[1:])
        return DeviceArray(self.address + start * row, shape, self.dtype, self.owner, self.number)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self._host is None:
            self._host = np.empty(self.shape, self.dtype)
            _gpu(f"cuda:{self.number}").download(self._piece(), self._host)
            self._host.flags.writeable = False
        return self._host if dtype is None else self._host.astype(dtype)

    def _piece(self) -> Piece:
        return Piece(self.address, self.nbytes, self)

    def segment(self, device: Any, name: str) -> Segment:
        """The memory of a session's segment of this `name`: this very array, if it is on that
        `device`."""
        if device.number != self.number:
            return Segment(name, np.asarray(self))
        found = Segment(name, np.empty(self.shape, self.dtype))
        found.copies, found.current, found.foreign = {device: self._piece()}, {device}, True
        return found

    def copy_to(self, device: Any, target: Piece, place: Place) -> None:
        """Copy into a `place` of the memory `target` of a `device`, converted if need be."""
        if device.number == self.number and self.dtype == np.dtype(place.dtype):
            device.duplicate(self._piece(), target, self.nbytes, place.offset)
        else:
            device.upload(np.asarray(self).astype(place.dtype), target, place.offset)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return interface(self.address, self.shape, self.dtype)

    def __dlpack_device__(self) -> tuple[int, int]:
        return KDL_CUDA, self.number

    def __dlpack__(self, **options: Any) -> Any:
        return capsule(self, options)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, device=cuda:{self.number})"


def interface(
    address: int, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None
) -> dict[str, Any]:
    """An array on a device as the CUDA array interface describes it (version 3)."""
    return {
        "shape": shape, "typestr": np.dtype(dtype).str, "data": (address, False),
        "strides": strides, "stream": None, "version": 3,
    }  # fmt: skip


def capsule(array: Any, options: dict[str, Any]) -> Any:
    """The DLPack capsule of something that has a CUDA array interface."""
    view = _cuda.core().utils.StridedMemoryView.from_cuda_array_interface(array, -1)
    return view.__dlpack__(**options)
