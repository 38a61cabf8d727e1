"""A parameter as an array: the protocols by which NumPy, CuPy, PyTorch and others read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.access import look
from fastnn.graph.leaf import strides_of
from fastnn.graph.methods import functions
from fastnn.graph.tracing import traced
from fastnn.nn.operators import refuse_numbers
from fastnn.runtime import devices

if TYPE_CHECKING:
    from fastnn.engine.store import ParameterStore


class ArrayProtocols:
    """What makes a `Parameter`, on the host or on a device, an array to other libraries."""

    __slots__ = ()

    if TYPE_CHECKING:
        _name: str
        name: Any
        shape: Any
        storage_shape: Any
        segment: Any
        transposed: Any
        value: Any
        store: ParameterStore | None
        offset: int | None

        def read(self) -> np.ndarray: ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        refuse_numbers(self)
        return np.array(self.read(), dtype=dtype, copy=True if copy is None else copy)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The device's own array, for CuPy, PyTorch and the like; only where the model's memory is
        on a device. It may be written to; take it anew after the model has moved."""
        from fastnn.runtime.cuda import array as device

        address, flat = self._on_device()
        item = np.dtype(flat.dtype).itemsize
        strides = strides_of(self.storage_shape, item) if self.transposed else None
        return device.interface(
            address + item * (self.offset or 0), self.shape, flat.dtype, strides
        )

    def _on_device(self) -> tuple[int, np.ndarray]:
        """Address of the device's segment, and the host's array of it."""
        from fastnn.runtime.cuda.gpu import gpu

        if self.store is None or devices.on_host(self.store.device):
            raise AttributeError(
                f"parameter {self.name!r} is not on a CUDA device: model.to('cuda')"
            )
        look(self.store, f"parameter {self._name!r}")
        holder, segment = gpu(self.store.device), self.store.segments[self.segment]
        self.store.away = True
        address: int = segment.on(holder, writes=True).address
        holder.sync()
        return address, segment.host

    def __dlpack_device__(self) -> tuple[int, int]:
        if self.store is None or devices.on_host(self.store.device):
            found: tuple[int, int] = self.value.__dlpack_device__()
            return found
        return 2, devices.number_of(self.store.device)

    def __dlpack__(self, **options: Any) -> Any:
        from fastnn.runtime.cuda import array as device

        if self.store is None or devices.on_host(self.store.device):
            return self.value.__dlpack__(**options)
        return device.capsule(self, options)

    def __getitem__(self, key: Any) -> Any:
        """Its numbers; in a `forward`, the symbolic value."""
        if traced() is None:
            return self.value[key]
        return functions().getitem(self, key)

    def __setitem__(self, key: Any, array: Any) -> None:
        self.value[key] = array
