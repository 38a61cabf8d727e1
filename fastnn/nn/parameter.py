"""Parameters, buffers, and the flat memory they live in."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, refuse_masked
from fastnn.nn import init as initializers
from fastnn.runtime.segment import Segment

#: parameters begin at multiples of this many elements (64 bytes in float32)
ALIGN = 16


def padded(size: int) -> int:
    """Where the next parameter begins after one that ends here, in elements."""
    return -(-size // ALIGN) * ALIGN


class Parameter:
    """An array that a layer owns: trained, or (with `trainable=False`) kept as a buffer.

    The array behind it is `value`, a NumPy view into the model's memory: read it and assign to it
    between steps. It is initialised when it is first needed, with the model's seed.

    A model on a GPU has its memory there: taking `value` fetches it, and since it may be written
    to, the next step sends it back. So take it anew after a step instead of keeping it; to look
    only, use `np.array(parameter)`, which sends nothing back. `__cuda_array_interface__` and DLPack
    show the device's own array.

    Args:
        shape: the shape users see (PyTorch's).
        init: an initialiser's name, a number, or a function of (shape, rng); see `nn.init`.
        transposed: keep the array transposed in memory (matrix products want it so); `value` is
            still of `shape`.
        trainable: False for a buffer, such as running statistics.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        init: str | float | Callable[..., Any] = 0.0,
        *,
        transposed: bool = False,
        trainable: bool = True,
    ):
        self.shape = tuple(int(n) for n in shape)
        if any(n < 1 for n in self.shape):
            raise ShapeError(f"expected a parameter's sizes to be at least 1, got {self.shape}")
        if transposed and len(self.shape) != 2:
            raise ShapeError(f"only a matrix can be kept transposed, got shape {self.shape}")
        self.init = initializers.get(init)
        self.transposed = transposed
        self.trainable = trainable
        self.name = ""
        self.offset: int | None = None  # in its segment, in elements
        self.home: ParameterStore | None = None  # the store that holds it
        self._storage: np.ndarray | None = None
        self._gradient: np.ndarray | None = None

    @property
    def storage_shape(self) -> tuple[int, ...]:
        """The shape in memory."""
        return self.shape[::-1] if self.transposed else self.shape

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def initialized(self) -> bool:
        return self._storage is not None

    def initialize(self, seed: int = 0) -> None:
        """Give the parameter its initial contents; the name makes its random numbers its own."""
        rng = np.random.Generator(
            np.random.Philox(key=np.array([seed, zlib.crc32(self.name.encode())], np.uint64))
        )
        self.value = self.init(self.shape, rng)

    @property
    def segment(self) -> str:
        """Name of the store's segment that it lies in."""
        return "params" if self.trainable else "buffers"

    @property
    def value(self) -> np.ndarray:
        """The contents, a view of shape `shape`."""
        if self._storage is None:
            self.initialize()
        elif self.home is not None and self.home.away:
            self.home.bring_home(self.segment)
        return self._seen()

    @value.setter
    def value(self, array: Any) -> None:
        refuse_masked(array, f"parameter {self.name!r}")
        array = np.asarray(array)
        if array.shape != self.shape:
            raise ShapeError(
                f"parameter {self.name!r}: expected shape {self.shape}, got {array.shape}"
            )
        if self._storage is None:
            dtype = np.float64 if array.dtype == np.float64 else np.float32
            self._storage = np.empty(self.storage_shape, dtype)
        self.value[...] = array

    def _seen(self) -> np.ndarray:
        assert self._storage is not None
        return self._storage.T if self.transposed else self._storage

    def read(self) -> np.ndarray:
        """The contents like `value`, to look at only."""
        if self._storage is None or self.home is None or not self.home.away:
            return self.value
        self.home.segments[self.segment].for_reading()
        return self._seen()

    @property
    def grad(self) -> np.ndarray | None:
        """The gradient of the last training step, a view; None for a parameter without a model.

        Only where gradients are kept: with ``keep_gradients=True`` of `Trainer` or `compile`.
        Raises OptionError where they are not.
        """
        if self.home is not None and self.home.dropped:
            raise OptionError(
                f"parameter {self.name!r}: the gradients of training steps were not kept; pass "
                "keep_gradients=True to Trainer or fastnn.compile, or take step.gradients(x, y)"
            )
        return self.last_gradient()

    def last_gradient(self) -> np.ndarray | None:
        """What lies where gradients are kept."""
        if self._gradient is not None and self.home is not None and self.home.away:
            self.home.segments["grads"].for_reading()
        if self._gradient is None or not self.transposed:
            return self._gradient
        return self._gradient.T

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.read(), dtype=dtype, copy=True if copy is None else copy)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The device's own array, for CuPy, PyTorch and the like; only where the model's memory is
        on a device. It may be written to; take it anew after the model has moved."""
        from fastnn.data import device

        address, flat = self._on_device()
        item = np.dtype(flat.dtype).itemsize
        strides = (item, self.shape[0] * item) if self.transposed else None
        return device.interface(
            address + item * (self.offset or 0), self.shape, flat.dtype, strides
        )

    def _on_device(self) -> tuple[int, np.ndarray]:
        """Address of the device's segment, and the host's array of it."""
        from fastnn.runtime.cuda.gpu import gpu

        if self.home is None or self.home.device == "cpu":
            raise AttributeError(
                f"parameter {self.name!r} is not on a CUDA device: model.to('cuda')"
            )
        holder, segment = gpu(self.home.device), self.home.segments[self.segment]
        self.home.away = True
        address: int = segment.on(holder, writes=True).address
        holder.sync()
        return address, segment.host

    def __dlpack_device__(self) -> tuple[int, int]:
        if self.home is None or self.home.device == "cpu":
            found: tuple[int, int] = self.value.__dlpack_device__()
            return found
        return 2, int(self.home.device.removeprefix("cuda:"))

    def __dlpack__(self, **options: Any) -> Any:
        from fastnn.data import device

        if self.home is None or self.home.device == "cpu":
            return self.value.__dlpack__(**options)
        return device.capsule(self, options)

    def __getitem__(self, key: Any) -> Any:
        return self.value[key]

    def __setitem__(self, key: Any, array: Any) -> None:
        self.value[key] = array

    def __repr__(self) -> str:
        kind = "Parameter" if self.trainable else "Buffer"
        return f"{kind}({self.name or '?'}, shape={self.shape})"


class ParameterStore:
    """One flat array for all trained parameters of a model, another for its buffers.

    Optimiser slots and gradients have the same layout, so one offset serves all of them. Models
    that share parameters share the store of the largest of them. A store whose parameters were
    moved to another one is `stale`: programs that use its memory must not run any more.

    Attributes:
        dropped: whether training steps don't keep their gradients.
        device: where the models of this store run: "cpu", "cuda:0", ...
        away: whether a device holds copies that are up to date: the host must not use its arrays
            before `bring_home` (see `fastnn/runtime/segment.py`).
    """

    def __init__(self, parameters: Mapping[str, Parameter], dtype: str):
        from fastnn.runtime.cpu.memory import aligned_zeros

        self.dtype = dtype
        self.stale = False
        self.dropped = False  # whether training steps leave their gradients nowhere
        self.device, self.away = "cpu", False
        self.parameters = {n: p for n, p in parameters.items() if p.trainable}
        self.buffers = {n: p for n, p in parameters.items() if not p.trainable}
        sizes = {True: 0, False: 0}
        for parameter in parameters.values():
            parameter.offset = sizes[parameter.trainable]
            sizes[parameter.trainable] += padded(parameter.size)
        self.size = max(sizes[True], ALIGN)
        self._arrays = {
            "params": aligned_zeros(self.size, dtype),
            "grads": aligned_zeros(self.size, dtype),
            "buffers": aligned_zeros(max(sizes[False], ALIGN), dtype),
        }
        self.segments = {name: Segment(name, array) for name, array in self._arrays.items()}
        for parameter in parameters.values():
            view = self.view(self._arrays[parameter.segment], parameter)
            view[...] = parameter.read().T if parameter.transposed else parameter.read()
            parameter._storage = view
            if parameter.home is not None:
                parameter.home.stale = True
                self.device = parameter.home.device
            parameter.home = self
            if parameter.trainable:
                parameter._gradient = self.view(self._arrays["grads"], parameter)

    @property
    def memory(self) -> dict[str, np.ndarray]:
        """The segments' arrays on the host, for reading and writing."""
        self.bring_home()
        return self._arrays

    def bring_home(self, name: str | None = None) -> None:
        """Fetch a segment (or all) from its device, to be read and written on the host."""
        if not self.away:
            return
        for key, segment in self.segments.items():
            if name in (None, key):
                segment.for_writing()
        self.away = not all(segment.at_home for segment in self.segments.values())

    def check(self) -> None:
        """Raise an error if the parameters have moved to another store."""
        if self.stale:
            raise OptionError(
                "the model's parameters have moved into another model's memory since this was "
                "compiled; make the model that contains all of them first (its store()), then "
                "compile the parts, and use one dtype for all"
            )

    def view(self, flat: np.ndarray, parameter: Parameter) -> np.ndarray:
        """A parameter's part of a flat array, in its storage shape."""
        assert parameter.offset is not None
        part = flat[parameter.offset : parameter.offset + parameter.size]
        return part.reshape(parameter.storage_shape)
