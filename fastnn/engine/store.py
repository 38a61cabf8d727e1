"""Memory of parameters: flat arrays, in which each parameter has a place.

A store is made when the first of its parameters is looked at, for the whole model that the
parameter belongs to, so ordinary use moves nothing. What does move parameters (a model made of
parts that had stores before, another element type) makes one new store of all the old ones:
contents go along, the old stores become `stale`, their arrays NaN and the views that were handed
out read-only.
"""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from fastnn.engine import access
from fastnn.engine.numbers import check_range
from fastnn.errors import OptionError, where
from fastnn.graph.leaf import as_seen, as_stored
from fastnn.runtime import devices
from fastnn.runtime.segment import Segment, aligned_zeros

#: parameters begin at multiples of this many elements (64 bytes in float32)
ALIGN = 16


def padded(size: int) -> int:
    """Where the next parameter begins after one that ends here, in elements."""
    return -(-size // ALIGN) * ALIGN


class Stored(Protocol):
    """What lies in a store: a parameter or a buffer.

    Attributes:
        shape, storage_shape: as users see it, and as it lies in memory.
        segment: name of the segment that it lies in, "params" or "buffers".
        store: the store that it lies in; None: it has no memory yet.
        offset: where it begins in its segment, in elements.
        buffer: whether it lies among the buffers.
        _contents: what it holds as long as it is in no store, or None.
        _device: the device that its model is to run on, as long as it is in no store, or None.
        _drawn: how it was drawn without anybody having chosen a seed (seed, name, element type,
            checksum); None: it was not.
        _unset: what an error says as long as it holds nothing but 0; "": it may.
    """

    store: ParameterStore | None
    offset: int | None
    buffer: bool
    _contents: np.ndarray | None
    _device: str | None
    _drawn: tuple[int, str, str, int] | None
    _unset: str
    value: Any

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def segment(self) -> str: ...
    @property
    def transposed(self) -> bool: ...
    @property
    def trainable(self) -> bool: ...
    @property
    def storage_shape(self) -> tuple[int, ...]: ...
    @property
    def initialized(self) -> bool: ...
    def draw(self, seed: int, name: str) -> np.ndarray: ...
    def read(self) -> np.ndarray: ...
    def checksum(self) -> int: ...


class ParameterStore:
    """One flat array for all parameters of a model, frozen ones included, another for its buffers.

    Optimiser slots and gradients have the same layout, so one offset serves all of them. Models
    that share parameters share a store. A store whose parameters were moved to another one is
    `stale`: programs that use its memory must not run any more, and its arrays hold NaN.

    Args:
        parameters: the parameters with their names. Those that have a place elsewhere move here;
            those without contents are drawn from seed 0 and their name (see `fill`).
        dtype: "float32" or "float64".

    Attributes:
        chosen: whether somebody has asked for this element type.
        dropped: whether training steps don't keep their gradients.
        device: where the models of this store run: "cpu", "cuda:0", ...
        away: whether a device holds copies that are up to date: the host must not use its arrays
            before `bring_to_host` (see `fastnn/runtime/segment.py`).
    """

    def __init__(self, parameters: Iterable[tuple[str, Stored]], dtype: str):
        named = list(parameters)
        self.dtype, self.chosen, self.stale = dtype, False, False
        self.dropped = False  # whether training steps leave their gradients nowhere
        self.device, self.away = devices.HOST, False
        sizes = {"params": 0, "buffers": 0}
        offsets = []
        for _, parameter in named:
            offsets.append(sizes[parameter.segment])
            sizes[parameter.segment] += padded(parameter.size)
        self.size = max(sizes["params"], ALIGN)
        self._arrays = {
            "params": aligned_zeros(self.size, dtype),
            "grads": aligned_zeros(self.size, dtype),
            "buffers": aligned_zeros(max(sizes["buffers"], ALIGN), dtype),
        }
        self.segments = {name: Segment(name, array) for name, array in self._arrays.items()}
        self._members = [weakref.ref(parameter) for _, parameter in named]
        self._unset = [weakref.ref(parameter) for _, parameter in named if parameter._unset]
        self._shown: list[weakref.ref[np.ndarray]] = []
        drawn = []
        for (name, parameter), offset in zip(named, offsets, strict=True):
            contents, how = _contents(parameter, name, dtype)
            check_range(contents, dtype, f"parameter {name!r}")
            self._view(self._arrays[parameter.segment], parameter, offset)[...] = contents
            drawn.append(how)
        before: dict[int, ParameterStore] = {}
        for (_, parameter), offset, how in zip(named, offsets, drawn, strict=True):
            if parameter.store is not None:
                before[id(parameter.store)] = parameter.store
            elif parameter._device is not None:
                self.device = parameter._device
            parameter.store, parameter.offset, parameter._contents = self, offset, None
            parameter._drawn = None
            if how is not None:
                parameter._drawn = (*how, parameter.checksum())
        for store in before.values():
            if not devices.on_host(store.device):
                self.device = store.device
            self.chosen = self.chosen or (store.chosen and store.dtype == dtype)
            store._retire()

    def fill(self, named: Iterable[tuple[str, Stored]], seed: int) -> None:
        """Draw anew, from a seed that somebody has chosen, what was drawn without one.

        What was assigned, loaded or changed since it was drawn stays. After this, no other seed
        changes these parameters.
        """
        for name, parameter in named:
            how = parameter._drawn
            if how is None:
                continue
            if how[:3] != (seed, name, self.dtype) and how[3] == parameter.checksum():
                parameter.value = parameter.draw(seed, name)
            parameter._drawn = None

    @property
    def members(self) -> list[Stored]:
        """The parameters and buffers that are still in use."""
        found = [ref() for ref in self._members]
        return [p for p in found if p is not None and p.store is self]

    @property
    def parameters(self) -> dict[str, Stored]:
        """Those that are no buffers, by name."""
        return {p.name: p for p in self.members if not p.buffer}

    @property
    def memory(self) -> dict[str, np.ndarray]:
        """The segments' arrays on the host, for reading and writing."""
        self.bring_to_host()
        return self._arrays

    def bring_to_host(self, name: str | None = None) -> None:
        """Fetch a segment (or all) from its device, to be read and written on the host."""
        access.synchronize(self)
        if not self.away:
            return
        for key, segment in self.segments.items():
            if name in (None, key):
                segment.for_writing()
        self.away = not all(segment.on_host for segment in self.segments.values())

    def check(self) -> None:
        """Raise an error if the parameters have moved to another store."""
        if self.stale:
            raise OptionError(
                "the model's parameters have moved into another model's memory since this was "
                "compiled; make the model that contains all of them first (its store()), then "
                "compile the parts, and use one dtype for all"
            )

    def check_set(self) -> None:
        """Raise an error if there is a buffer that has yet to be set."""
        while self._unset:
            parameter = self._unset[-1]()
            if parameter is not None and parameter.store is self and not parameter.read().any():
                name = parameter.name.rpartition(".")[0]
                raise OptionError(f"{where(name)}{parameter._unset}")
            self._unset.pop()

    def view(self, flat: np.ndarray, parameter: Stored) -> np.ndarray:
        """A parameter's part of a flat array, in its storage shape."""
        if parameter.store is not self or parameter.offset is None:
            raise OptionError(
                f"parameter {parameter.name!r} lies in another model's memory; make the trainer or "
                "step anew, with the model that contains it"
            )
        return self._view(flat, parameter, parameter.offset)

    @staticmethod
    def _view(flat: np.ndarray, parameter: Stored, offset: int) -> np.ndarray:
        return flat[offset : offset + parameter.size].reshape(parameter.storage_shape)

    def seen(self, parameter: Stored, segment: str = "") -> np.ndarray:
        """A parameter's part of a segment (its own one) as users see it."""
        view = self.view(self._arrays[segment or parameter.segment], parameter)
        return as_seen(view) if parameter.transposed else view

    def show(self, parameter: Stored) -> np.ndarray:
        """The same for somebody to keep; read-only as soon as the store is stale."""
        view = self.seen(parameter)
        if len(self._shown) >= 64:
            self._shown = [ref for ref in self._shown if ref() is not None]
        self._shown.append(weakref.ref(view))
        return view

    def _retire(self) -> None:
        """The parameters have moved: whoever still looks here must not take it for them."""
        self.stale = True
        for array in self._arrays.values():
            array.fill(np.nan)
        for ref in self._shown:
            view = ref()
            if view is not None:
                view.flags.writeable = False


def _contents(
    parameter: Stored, name: str, dtype: str
) -> tuple[np.ndarray, tuple[int, str, str] | None]:
    """What a parameter holds, in storage shape, and how it was drawn if nobody chose a seed."""
    how = parameter._drawn
    if not parameter.initialized:
        how = (0, name, dtype, 0)
        array = parameter.draw(0, name)
    else:
        array = parameter.read() if parameter._contents is None else parameter._contents
        if how is not None and how[3] != zlib.crc32(array.tobytes()):
            how = None  # changed since
        elif how is not None and how[2] != dtype:  # with all digits of the new type
            array = parameter.draw(how[0], how[1])
    array = as_stored(array) if parameter.transposed else array
    return array, None if how is None else (how[0], how[1], dtype)
