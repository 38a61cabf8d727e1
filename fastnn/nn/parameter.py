"""Parameters, buffers, and the flat memory they live in.

One rule says who owns what. A `ParameterStore` owns arrays; a `Parameter` is a place in one, and
everything else (`value`, `grad`, programs, checkpoints, copies) asks it for that place. A store is
made when the first of its parameters is looked at, for the whole model that the parameter belongs
to, so ordinary use moves nothing. What does move parameters (a model made of parts that had stores
before, another element type) makes one new store of all the old ones: contents go along, the old
stores become `stale`, their arrays NaN and the views that were handed out read-only.
"""

from __future__ import annotations

import copy
import functools
import weakref
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.errors import (
    DataError,
    OptionError,
    ShapeError,
    UnknownAttributeError,
    refuse_masked,
)
from fastnn.graph.graph import traced
from fastnn.nn import init as initializers
from fastnn.nn import structure
from fastnn.nn.operators import Operators, refuse_numbers
from fastnn.runtime.segment import Segment
from fastnn.runtime.turns import settle

if TYPE_CHECKING:
    from fastnn.nn.module import Module

#: parameters begin at multiples of this many elements (64 bytes in float32)
ALIGN = 16


def padded(size: int) -> int:
    """Where the next parameter begins after one that ends here, in elements."""
    return -(-size // ALIGN) * ALIGN


def numbers(given: Any, what: str) -> np.ndarray:
    """A NumPy array of whatever holds one: arrays, lists, tensors of PyTorch (bfloat16, those on a
    GPU and those with a gradient, too). Raises DataError for anything but real numbers."""
    refuse_masked(given, what)
    for step in ("detach", "cpu"):
        if callable(getattr(given, step, None)):
            given = getattr(given, step)()
    if str(getattr(given, "dtype", "")).endswith("bfloat16"):
        given = given.float() if hasattr(given, "float") else given.astype(np.float32)
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{what}: expected an array of numbers, got {type(given).__name__} ({error})"
        ) from None
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"{what}: expected real numbers, got {type(given).__name__} of {array.dtype}; convert "
            "it with np.asarray(array, np.float32)"
        )
    return array


def check_range(array: np.ndarray, dtype: Any, what: str) -> None:
    """Raise DataError for finite numbers that are infinite in another element type."""
    if array.dtype.kind != "f" or array.itemsize <= np.dtype(dtype).itemsize:
        return
    limit = np.finfo(dtype).max
    beyond = np.isfinite(array) & (np.abs(array) > limit)
    if beyond.any():
        raise DataError(
            f"{what}: expected numbers within {np.dtype(dtype)}'s range, +-{limit:.3g}, got "
            f"{array[beyond].flat[0]:.3g}; scale them, or use float64"
        )


class Parameter(Operators, structure.Leaf):
    """An array that a layer owns: trained, frozen, or (made with `trainable=False`) a buffer.

    The array behind it is `value`, a NumPy view into the model's memory: read it and assign to it
    between steps; it stays connected while the model is trained. It is initialised when it is first
    needed, with the seed of the trainer or step; looked at before one is made, it shows the start
    of seed 0, and takes that of the trainer's seed later unless it was assigned to.

    A model on a GPU has its memory there: taking `value` fetches it, and since it may be written
    to, the next step sends it back. So take it anew after a step instead of keeping it; to look
    only, use `np.array(parameter)`, which sends nothing back. `__cuda_array_interface__` and DLPack
    show the device's own array.

    Copies (`copy.deepcopy`, `pickle`) have the contents and memory of their own.

    Args:
        shape: the shape users see (PyTorch's).
        init: an initialiser's name, a number, or a function of (shape, rng); see `nn.init`.
        transposed: keep the array transposed in memory (matrix products want it so); `value` is
            still of `shape`.
        trainable: False for a buffer, such as running statistics.

    Attributes:
        trainable: whether training moves it. False freezes a parameter, at any time: neither
            gradients nor weight decay nor momentum move it, and its optimiser state is kept for
            when it is True again. `requires_grad` is another name of it. A buffer that is made
            trainable moves in memory, so trainers and steps made before have to be made anew.

    >>> from fastnn import nn
    >>> layer = nn.Linear(3, 2)
    >>> layer.bias.value = [0.5, -0.5]
    >>> layer.bias.trainable = False
    >>> layer.bias
    Parameter(bias, shape=(2,), frozen)
    """

    __slots__ = (
        "__weakref__", "_contents", "_device", "_drawn", "_dtype", "_init", "_name",
        "_shape", "_trainable", "_transposed", "buffer", "home", "offset",
    )  # fmt: skip

    def __init__(
        self,
        shape: tuple[int, ...],
        init: str | float | Callable[..., Any] = 0.0,
        *,
        transposed: bool = False,
        trainable: bool = True,
    ):
        self._shape = tuple(int(n) for n in shape)
        if any(n < 1 for n in self.shape):
            raise ShapeError(f"expected a parameter's sizes to be at least 1, got {self.shape}")
        if transposed and len(self.shape) != 2:
            raise ShapeError(f"only a matrix can be kept transposed, got shape {self.shape}")
        self._init = initializers.get(init)
        self._transposed = bool(transposed)
        self._trainable = bool(trainable)
        self.buffer = not trainable  # lies among the buffers, which a forward pass may write to
        self._name = ""
        self._free()

    def _free(self) -> None:
        """No memory yet: contents and what a store has to be like are notes for the first one."""
        self.home: ParameterStore | None = None  # the store that holds it
        self.offset: int | None = None  # in its segment, in elements
        self._contents: np.ndarray | None = None
        self._dtype: str | None = None
        self._device: str | None = None
        #: how it was drawn without anybody having chosen a seed: seed, name, type, checksum
        self._drawn: tuple[int, str, str, int] | None = None
        self._owners: list[weakref.ref[Module]] = []

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name) and not hasattr(self, "__dict__"):
            raise UnknownAttributeError(
                f"parameter {self._name!r}: expected one of 'value', 'trainable' (also called "
                f"'requires_grad') or 'init' to be set, got {name!r}, which would mean nothing; "
                "keep it in an attribute of the layer"
            )
        try:
            object.__setattr__(self, name, value)
        except AttributeError:
            raise UnknownAttributeError(
                f"parameter {self._name!r}: {name!r} can be read only; set its value, trainable or "
                "init, or make a new nn.Parameter"
            ) from None

    # ---------------------------------------------------------------- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def name(self) -> str:
        """Its dotted name in the model that was looked through last."""
        return self._name

    @property
    def transposed(self) -> bool:
        """Whether it is kept transposed in memory."""
        return self._transposed

    @property
    def init(self) -> Callable[..., Any]:
        """The initialiser, a function of (shape, rng)."""
        return self._init

    @init.setter
    def init(self, init: str | float | Callable[..., Any]) -> None:
        self._init = initializers.get(init)

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        if not isinstance(trainable, (bool, np.bool_)):
            raise OptionError(
                f"parameter {self._name!r}: expected trainable to be True or False, got "
                f"{trainable!r}"
            )
        if trainable and self.buffer:
            if self.home is not None:
                self._leave()
            self.buffer = False
        self._trainable = bool(trainable)
        structure.note_change()

    requires_grad = trainable

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
    def segment(self) -> str:
        """Name of the store's segment that it lies in."""
        return "buffers" if self.buffer else "params"

    # ---------------------------------------------------------------- contents

    @property
    def initialized(self) -> bool:
        return self.home is not None or self._contents is not None

    def initialize(self, seed: int = 0) -> None:
        """Give the parameter its initial contents; the name makes its random numbers its own."""
        self.value = self.draw(seed, self.name)

    def draw(self, seed: int, name: str) -> np.ndarray:
        """What the initialiser gives for a seed and a name."""
        rng = np.random.Generator(
            np.random.Philox(key=np.array([seed, zlib.crc32(name.encode())], np.uint64))
        )
        array = numbers(self.init(self.shape, rng), f"the initialiser of parameter {name!r}")
        self._fits(array)
        return array

    def checksum(self) -> int:
        """Of the contents."""
        return zlib.crc32(self.read().tobytes())

    @property
    def value(self) -> np.ndarray:
        """The contents, a view of shape `shape`."""
        refuse_numbers(self)
        home = self._at_home()
        settle(home)
        if home.away:
            home.bring_home(self.segment)
        return home.show(self)

    @value.setter
    def value(self, array: Any) -> None:
        array = numbers(array, f"parameter {self._name!r}")
        self._fits(array)
        self.check_range(array)
        self._drawn = None
        if self.home is None:
            kind = np.float64 if array.dtype.kind == "f" and array.itemsize >= 8 else np.float32
            self._contents = np.array(array, kind)
        else:
            self.value[...] = array

    def check_range(self, array: np.ndarray) -> None:
        """Raise DataError for numbers that the parameter can't hold."""
        dtype = np.float64 if self.home is None else self.home.dtype
        check_range(array, dtype, f"parameter {self._name!r}")

    def _fits(self, array: np.ndarray) -> None:
        if array.shape != self.shape:
            raise ShapeError(
                f"parameter {self.name!r}: expected shape {self.shape}, got {array.shape}"
            )

    def _at_home(self) -> ParameterStore:
        """Its store; made, for the whole model it belongs to, if it has none."""
        if self.home is None:
            owner = structure.owner(self)
            if owner is not None:
                owner.store()
            if self.home is None:
                ParameterStore([(self._name, self)], self._dtype or "float32")
        assert self.home is not None
        return self.home

    def read(self) -> np.ndarray:
        """The contents like `value`, to look at only."""
        home = self._at_home()
        settle(home)
        if home.away:
            home.segments[self.segment].for_reading()
        return home.seen(self)

    def _leave(self) -> None:
        """Give up the place in the store, with the contents; the next use makes a new store."""
        contents, home, drawn, owners = np.array(self.read()), self.home, self._drawn, self._owners
        assert home is not None
        self._free()
        self._contents, self._dtype, self._device = contents, home.dtype, home.device
        self._drawn, self._owners = drawn, owners
        structure.note_change()

    def untransposed(self) -> Parameter:
        """Itself, from now on kept in memory as users see it."""
        if self._transposed:
            if self.home is not None:
                self._leave()
            self._transposed = False
        return self

    # ---------------------------------------------------------------- gradient

    @property
    def grad(self) -> np.ndarray | None:
        """The gradient of the last training step, a view; None for a parameter that is not trained
        or without a model.

        Only where gradients are kept: with ``keep_gradients=True`` of `Trainer` or `compile`.
        Raises OptionError where they are not.
        """
        if self.home is None or not self.trainable:
            return None
        if self.home.dropped:
            raise OptionError(
                f"parameter {self.name!r}: the gradients of training steps were not kept; pass "
                "keep_gradients=True to Trainer or fastnn.compile, or take step.gradients(x, y)"
            )
        return self.last_gradient()

    def last_gradient(self) -> np.ndarray | None:
        """What lies where gradients are kept."""
        if self.home is None or self.buffer:
            return None
        if self.home.away:
            self.home.segments["grads"].for_reading()
        return self.home.seen(self, "grads")

    # ---------------------------------------------------------------- copies

    def __getstate__(self) -> dict[str, Any]:
        return self._state(self._kept_init())

    def _state(self, init: Callable[..., Any]) -> dict[str, Any]:
        """What a copy is made of: the contents, not the memory."""
        home = self.home
        return {
            "shape": self.shape, "init": init, "transposed": self.transposed,
            "trainable": self.trainable, "buffer": self.buffer, "name": self.name,
            "contents": np.array(self.read(), order="C") if home is not None else self._contents,
            "dtype": self._dtype if home is None else home.dtype,
            "device": self._device if home is None else home.device,
            "drawn": self._drawn, "more": dict(getattr(self, "__dict__", {})),
        }  # fmt: skip

    def _kept_init(self) -> Callable[..., Any]:
        """The initialiser, or where pickle can't take it what says so when it is needed."""
        function = getattr(self._init, "func", self._init)
        name = getattr(function, "__qualname__", "")
        if "<" not in name:
            return self._init
        if not self.initialized:
            raise OptionError(
                f"parameter {self.name!r} has no contents yet, and its initialiser {name} is local "
                "to a function, so pickle can't take it; call model.store() first, or define it at "
                "the top of a module"
            )
        return functools.partial(_lost, name=name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        state = self._state(self._init)
        state["more"] = copy.deepcopy(state["more"], memo)
        if self.home is None and self._contents is not None:
            state["contents"] = self._contents.copy()
        other.__setstate__(state)
        return other

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._free()
        for name in ("shape", "init", "transposed", "trainable", "name", "contents", "dtype",
                     "device", "drawn"):  # fmt: skip
            object.__setattr__(self, f"_{name}", state[name])
        self.buffer = state["buffer"]
        for name, value in state["more"].items():
            setattr(self, name, value)

    # ---------------------------------------------------------------- as an array

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
        from fastnn.runtime.cuda import array as device

        if self.home is None or self.home.device == "cpu":
            return self.value.__dlpack__(**options)
        return device.capsule(self, options)

    def __getitem__(self, key: Any) -> Any:
        """Its numbers; in a `forward`, the symbolic value."""
        if traced() is None:
            return self.value[key]
        from fastnn.ops.shape import getitem

        return getitem(self, key)

    def __setitem__(self, key: Any, array: Any) -> None:
        self.value[key] = array

    def __repr__(self) -> str:
        kind = "Buffer" if self.buffer else "Parameter"
        frozen = "" if self.trainable or self.buffer else ", frozen"
        return f"{kind}({self.name or '?'}, shape={self.shape}{frozen})"


def _lost(shape: tuple[int, ...], rng: np.random.Generator, *, name: str) -> np.ndarray:
    """Stands for an initialiser that pickle could not take."""
    raise OptionError(
        f"the initialiser {name} was local to a function, so pickle did not keep it; set the "
        "parameter's init anew before it is initialised"
    )


class ParameterStore:
    """One flat array for all parameters of a model, frozen ones included, another for its buffers.

    Optimiser slots and gradients have the same layout, so one offset serves all of them. Models
    that share parameters share a store. A store whose parameters were moved to another one is
    `stale`: programs that use its memory must not run any more, and its arrays hold NaN.

    Args:
        parameters: the parameters with their names. Those that have a place elsewhere move here;
            those without contents are drawn from seed 0 and their name (see `settle`).
        dtype: "float32" or "float64".

    Attributes:
        chosen: whether somebody has asked for this element type.
        dropped: whether training steps don't keep their gradients.
        device: where the models of this store run: "cpu", "cuda:0", ...
        away: whether a device holds copies that are up to date: the host must not use its arrays
            before `bring_home` (see `fastnn/runtime/segment.py`).
    """

    def __init__(self, parameters: Iterable[tuple[str, Parameter]], dtype: str):
        from fastnn.runtime.cpu.memory import aligned_zeros

        named = list(parameters)
        self.dtype, self.chosen, self.stale = dtype, False, False
        self.dropped = False  # whether training steps leave their gradients nowhere
        self.device, self.away = "cpu", False
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
        self._shown: list[weakref.ref[np.ndarray]] = []
        drawn = []
        for (name, parameter), offset in zip(named, offsets, strict=True):
            contents, how = _contents(parameter, name, dtype)
            check_range(contents, dtype, f"parameter {name!r}")
            self._view(self._arrays[parameter.segment], parameter, offset)[...] = contents
            drawn.append(how)
        before: dict[int, ParameterStore] = {}
        for (_, parameter), offset, how in zip(named, offsets, drawn, strict=True):
            if parameter.home is not None:
                before[id(parameter.home)] = parameter.home
            elif parameter._device is not None:
                self.device = parameter._device
            parameter.home, parameter.offset, parameter._contents = self, offset, None
            parameter._drawn = None
            if how is not None:
                parameter._drawn = (*how, parameter.checksum())
        for store in before.values():
            if store.device != "cpu":
                self.device = store.device
            self.chosen = self.chosen or (store.chosen and store.dtype == dtype)
            store._retire()

    def settle(self, named: Iterable[tuple[str, Parameter]], seed: int) -> None:
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
    def members(self) -> list[Parameter]:
        """The parameters and buffers that are still in use."""
        found = [ref() for ref in self._members]
        return [p for p in found if p is not None and p.home is self]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Those that are no buffers, by name."""
        return {p.name: p for p in self.members if not p.buffer}

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
        if parameter.home is not self or parameter.offset is None:
            raise OptionError(
                f"parameter {parameter.name!r} lies in another model's memory; make the trainer or "
                "step anew, with the model that contains it"
            )
        return self._view(flat, parameter, parameter.offset)

    @staticmethod
    def _view(flat: np.ndarray, parameter: Parameter, offset: int) -> np.ndarray:
        return flat[offset : offset + parameter.size].reshape(parameter.storage_shape)

    def seen(self, parameter: Parameter, segment: str = "") -> np.ndarray:
        """A parameter's part of a segment (its own one) as users see it."""
        view = self.view(self._arrays[segment or parameter.segment], parameter)
        return view.T if parameter.transposed else view

    def show(self, parameter: Parameter) -> np.ndarray:
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
    parameter: Parameter, name: str, dtype: str
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
    array = array.T if parameter.transposed else array
    return array, None if how is None else (how[0], how[1], dtype)
