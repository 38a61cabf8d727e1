"""Parameters and buffers.

One rule says who owns what. A `ParameterStore` (`engine/store.py`) owns arrays; a `Parameter` is a
place in one, and everything else (`value`, `grad`, programs, checkpoints, copies) asks it for that
place.
"""

from __future__ import annotations

import copy
import sys
import weakref
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.access import Access, access_to, look
from fastnn.engine.numbers import check_range, numbers
from fastnn.engine.store import ParameterStore
from fastnn.errors import OptionError, ShapeError, UnknownAttributeError
from fastnn.graph.leaf import stored_axes
from fastnn.nn import init as initializers
from fastnn.nn import structure
from fastnn.nn.operators import Operators, refuse_numbers
from fastnn.nn.picklable import picklable
from fastnn.nn.protocols import ArrayProtocols
from fastnn.public import publish

if TYPE_CHECKING:
    from fastnn.nn.module import Module


class Parameter(Operators, ArrayProtocols, structure.Leaf):
    """An array owned by a layer: trained, frozen, or (if created with `trainable=False`) a buffer.

    `value` is a NumPy view into the model's memory. Read it and assign to it between steps; the
    view stays valid while the model is trained. A parameter is initialised when it is first needed,
    with the seed of the trainer or step. If you look at it before there is one, you see the values
    for seed 0; a trainer with another seed then draws new ones, unless you assigned some.

    If the model is on a GPU, reading `value` fetches it from there, and because you may have
    written to it, the next step sends it back. So read `value` again after a step instead of
    keeping the array. To look without sending anything back, use `np.array(parameter)`.
    `__cuda_array_interface__` and DLPack expose the device's own array.

    Copies (`copy.deepcopy`, `pickle`) have their own contents and memory.

    Args:
        shape: the shape that users see (as in PyTorch).
        init: an initialiser's name, a number, or a function of (shape, rng); see `nn.init`.
        transposed: keep the matrix transposed in memory, which matrix products prefer; with more
            dimensions, as in a convolution's weight, (out, in, *kernel) is stored as (*kernel, in,
            out). `value` still has shape `shape`.
        trainable: False for a buffer, such as running statistics.
        unset: for a buffer that must be set or loaded before the model is used: the text of the
            error that is raised while it holds only zeros.

    Attributes:
        trainable: whether training changes it. Setting it to False freezes the parameter at any
            time: neither gradients nor weight decay nor momentum change it, and its optimiser state
            is kept until it is True again. `requires_grad` is an alias. Making a buffer trainable
            moves it in memory, so create new trainers and steps afterwards.

    Raises:
        ShapeError: a size below 1, a value of another shape, or a vector that is to be
            transposed.
        OptionError: an unknown initialiser.
        DataError: a value that the element type cannot hold.
        UnknownAttributeError: another attribute is set.

    >>> from fastnn import nn
    >>> layer = nn.Linear(3, 2)
    >>> layer.bias.value = [0.5, -0.5]
    >>> layer.bias.trainable = False
    >>> layer.bias
    Parameter(bias, shape=(2,), frozen)
    """

    __slots__ = (
        "__weakref__", "_contents", "_device", "_drawn", "_dtype", "_init", "_name",
        "_shape", "_trainable", "_transposed", "_unset", "buffer", "offset", "store",
    )  # fmt: skip

    def __init__(
        self,
        shape: tuple[int, ...],
        init: str | float | Callable[..., Any] = 0.0,
        *,
        transposed: bool = False,
        trainable: bool = True,
        unset: str = "",
    ):
        self._shape = tuple(int(n) for n in shape)
        if any(n < 1 for n in self.shape):
            raise ShapeError(f"expected a parameter's sizes to be at least 1, got {self.shape}")
        if transposed and len(self.shape) < 2:
            raise ShapeError(f"a vector can't be kept transposed, got shape {self.shape}")
        self._init = initializers.get(init)
        self._transposed = bool(transposed)
        self._trainable = bool(trainable)
        self._unset = unset
        self.buffer = not trainable  # lies among the buffers, which a forward pass may write to
        self._name = ""
        self._free()

    def _free(self) -> None:
        """No memory yet: contents and what a store has to be like are notes for the first one."""
        self.store: ParameterStore | None = None  # the store that holds it
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
                f"'requires_grad') or 'init' to be set, got {name!r}, which has no meaning; "
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
        """The shape that users see."""
        return self._shape

    @property
    def name(self) -> str:
        """Its dotted name in the model that was last traversed."""
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
        """Whether training changes it; see the class.

        Raises OptionError when it is set to anything but True or False.
        """
        return self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        if not isinstance(trainable, (bool, np.bool_)):
            raise OptionError(
                f"parameter {self._name!r}: expected trainable to be True or False, got "
                f"{trainable!r}"
            )
        if trainable and self.buffer:
            if self.store is not None:
                self._leave()
            self.buffer = False
        self._trainable = bool(trainable)
        structure.note_change()

    requires_grad = trainable

    @property
    def storage_shape(self) -> tuple[int, ...]:
        """The shape in memory."""
        axes = stored_axes(self.ndim)
        return tuple(self.shape[d] for d in axes) if self.transposed else self.shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def segment(self) -> str:
        """Name of the store's segment that it lies in."""
        return "buffers" if self.buffer else "params"

    # ---------------------------------------------------------------- contents

    @property
    def initialized(self) -> bool:
        """Whether it has contents yet."""
        return self.store is not None or self._contents is not None

    def initialize(self, seed: int = 0) -> None:
        """Set the initial contents, drawn from `seed` and the parameter's name."""
        self.value = self.draw(seed, self.name)

    def draw(self, seed: int, name: str) -> np.ndarray:
        """The initial contents for a seed and a name.

        Raises ShapeError if the initialiser gives another shape.
        """
        if isinstance(self.init, initializers.Following):
            following = numbers(self.init.drawn(seed, name), f"parameter {name!r}")
            self._fits(following)
            return following
        rng = np.random.Generator(
            np.random.Philox(key=np.array([seed, zlib.crc32(name.encode())], np.uint64))
        )
        array = numbers(self.init(self.shape, rng), f"the initialiser of parameter {name!r}")
        self._fits(array)
        return array

    def checksum(self) -> int:
        """CRC-32 of the contents."""
        return zlib.crc32(self.read().tobytes())

    @property
    def value(self) -> np.ndarray:
        """The contents, a view of shape `shape`.

        Setting it raises ShapeError for another shape, DataError for numbers outside the element
        type's range.
        """
        refuse_numbers(self)
        store = self._placed()
        look(store, f"parameter {self._name!r}")
        if store.away:
            store.bring_to_host(self.segment)
        return store.show(self)

    @value.setter
    def value(self, array: Any) -> None:
        array = numbers(array, f"parameter {self._name!r}")
        self._fits(array)
        self.check_range(array)
        self._drawn = None
        if self.store is None:
            kind = np.float64 if array.dtype.kind == "f" and array.itemsize >= 8 else np.float32
            self._contents = np.array(array, kind)
        else:
            turn = access_to(self.store).train(Access(f"parameter {self._name!r}", sys._getframe()))
            try:
                self.value[...] = array
            finally:
                turn.end()

    def check_range(self, array: np.ndarray) -> None:
        """Raise DataError for numbers that the parameter can't hold."""
        dtype = np.float64 if self.store is None else self.store.dtype
        check_range(array, dtype, f"parameter {self._name!r}")

    def _fits(self, array: np.ndarray) -> None:
        if array.shape != self.shape:
            raise ShapeError(
                f"parameter {self.name!r}: expected shape {self.shape}, got {array.shape}"
            )

    def _placed(self) -> ParameterStore:
        """Its store; made, for the whole model it belongs to, if it has none."""
        if self.store is None:
            owner = structure.owner(self)
            if owner is not None:
                owner.store()
            if self.store is None:
                ParameterStore([(self._name, self)], self._dtype or "float32")
        assert self.store is not None
        return self.store

    def read(self) -> np.ndarray:
        """The contents, like `value`, but read-only."""
        store = self._placed()
        look(store, f"parameter {self._name!r}")
        if store.away:
            store.segments[self.segment].for_reading()
        return store.seen(self)

    def _leave(self) -> None:
        """Give up the place in the store, with the contents; the next use makes a new store."""
        contents, store, drawn, owners = (
            np.array(self.read()),
            self.store,
            self._drawn,
            self._owners,
        )
        assert store is not None
        self._free()
        self._contents, self._dtype, self._device = contents, store.dtype, store.device
        self._drawn, self._owners = drawn, owners
        structure.note_change()

    def untransposed(self) -> Parameter:
        """This parameter, from now on stored untransposed."""
        if self._transposed:
            if self.store is not None:
                self._leave()
            self._transposed = False
        return self

    # ---------------------------------------------------------------- gradient

    @property
    def grad(self) -> np.ndarray | None:
        """The gradient of the last training step, a view of shape `shape`; None for a parameter
        that is not trained or belongs to no model.

        Raises:
            OptionError: gradients are not kept; pass ``keep_gradients=True`` to `Trainer` or
                `compile`.
        """
        if self.store is None or not self.trainable:
            return None
        if self.store.dropped:
            raise OptionError(
                f"parameter {self.name!r}: the gradients of training steps were not kept; pass "
                "keep_gradients=True to Trainer or fastnn.compile, or take step.gradients(x, y)"
            )
        return self.last_gradient()

    def last_gradient(self) -> np.ndarray | None:
        """What lies where gradients are kept."""
        if self.store is None or self.buffer:
            return None
        look(self.store, f"parameter {self._name!r}")
        if self.store.away:
            self.store.segments["grads"].for_reading()
        return self.store.seen(self, "grads")

    # ---------------------------------------------------------------- copies

    def __getstate__(self) -> dict[str, Any]:
        return self._state(picklable(self._init, self.name, self.initialized))

    def _state(self, init: Callable[..., Any]) -> dict[str, Any]:
        """What a copy is made of: the contents, not the memory."""
        store = self.store
        return {
            "shape": self.shape, "init": init, "transposed": self.transposed,
            "trainable": self.trainable, "buffer": self.buffer, "name": self.name,
            "unset": self._unset,
            "contents": np.array(self.read(), order="C") if store is not None else self._contents,
            "dtype": self._dtype if store is None else store.dtype,
            "device": self._device if store is None else store.device,
            "drawn": self._drawn, "more": dict(getattr(self, "__dict__", {})),
        }  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        state = self._state(self._init)
        state["more"] = copy.deepcopy(state["more"], memo)
        if self.store is None and self._contents is not None:
            state["contents"] = self._contents.copy()
        other.__setstate__(state)
        return other

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._free()
        for name in ("shape", "init", "transposed", "trainable", "name", "contents", "dtype",
                     "device", "drawn", "unset"):  # fmt: skip
            object.__setattr__(self, f"_{name}", state[name])
        self.buffer = state["buffer"]
        for name, value in state["more"].items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        kind = "Buffer" if self.buffer else "Parameter"
        frozen = "" if self.trainable or self.buffer else ", frozen"
        return f"{kind}({self.name or '?'}, shape={self.shape}{frozen})"


publish(globals(), type)
