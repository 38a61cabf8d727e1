"""Batches that come one by one: checked, and with the program that serves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.arrays import Arrays, check_finite, check_weights
from fastnn.engine.builder import Built
from fastnn.runtime.interface import Bound
from fastnn.runtime.kept import Kept
from fastnn.train.batches import batch_of
from fastnn.weak import weak

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer

isfinite, all_of = np.isfinite, np.logical_and.reduce
least, most = np.minimum.reduce, np.maximum.reduce


@dataclass(frozen=True)
class Form:
    """What batches of the same element types and shapes have in common.

    Attributes:
        built, bound: the step that serves them.
        parts: inputs, targets and sample weights, without the arrays.
        names: of all arrays, in order.
        size: samples.
    """

    built: Built
    bound: Bound
    parts: tuple[Arrays, Arrays, Arrays]
    names: tuple[str, ...]
    size: int
    #: see `good`: numbers of the arrays of floats, and of others with their limits
    floats: tuple[int, ...]
    limited: tuple[tuple[int, int, int], ...]
    #: whether there is more to check
    strict: bool

    @property
    def nbytes(self) -> int:
        """About how much memory it holds alone, on the host."""
        return int(self.bound.nbytes)

    def good(self, arrays: list[np.ndarray], check_data: bool) -> bool:
        """A quick look at another batch's numbers: whether nothing can be wrong with them.

        What this doesn't accept may still be right.
        """
        if self.strict:
            return False
        if check_data:
            for k in self.floats:
                if not all_of(isfinite(arrays[k]), None):
                    return False
        for k, low, high in self.limited:
            array = arrays[k]
            if least(array, None) < low or most(array, None) >= high:
                return False
        return True

    def filled(self, arrays: list[Any]) -> tuple[Arrays, Arrays, Arrays]:
        """Another batch's arrays as inputs, targets and sample weights."""
        x, y, w = self.parts
        a, b = len(x.names), len(x.names) + len(y.names)
        return (
            Arrays(arrays[:a], x.specs, x.names), Arrays(arrays[a:b], y.specs, y.names),
            Arrays(arrays[b:], w.specs, w.names),
        )  # fmt: skip


class Forms:
    """Finds the step for each batch. A batch like one before is only looked at for its numbers.

    Args:
        trainer: whose steps these are.
        check_data: whether to look for NaN and infinity.
        training: whether they are training steps.
        bind: gives a step its memory.
    """

    trainer: weak[Trainer] = weak()

    def __init__(
        self, trainer: Trainer, check_data: bool, training: bool, bind: Callable[[Built], Bound]
    ):
        self.trainer, self.check_data, self.training, self.bind = (
            trainer, check_data, training, bind
        )  # fmt: skip
        self.what = "training" if training else "evaluation"
        self._known: Kept[Form] = Kept()
        self._bound: Kept[Bound] = Kept()  # by the program that each keeps alive

    def clear(self) -> None:
        """Forget all programs."""
        self._known.clear()
        self._bound.clear()

    def take(self, item: Any) -> tuple[Form, list[Any]]:
        """A batch's form, and its arrays in the order of the form's names.

        Raises DataError, ShapeError: it can't be used.
        """
        x, y, w = batch_of(item)
        plain = _plain(x, y, w)
        if plain is None:
            return self._new(x, y, w)
        key, arrays = plain
        form = self._known.get(key)
        if form is None:
            form, found = self._new(x, y, w)
            if all(a is b for a, b in zip(arrays, found, strict=True)):  # not cast
                self._known[key] = form
            return form, found
        if form.good(arrays, self.check_data):
            return form, arrays
        inputs, targets, weights = form.filled(arrays)
        if weights.arrays:
            check_weights(weights, inputs, self.trainer.dtype)
        if self.check_data:
            self._check_finite(inputs, targets)
        form.built.check(inputs, targets)
        return form, arrays

    def _check_finite(self, x: Arrays, y: Arrays) -> None:
        check_finite(x, f"{self.what} inputs", self.trainer.dtype)
        check_finite(y, f"{self.what} targets", self.trainer.dtype)

    def _new(self, x: Any, y: Any, w: Any) -> tuple[Form, list[Any]]:
        trainer, training = self.trainer, self.training
        x, y, w = trainer.checked(x, y, w, self.check_data, self.what)
        built = trainer.built(x.specs, y.specs, len(x), "direct", training, w.specs)
        built.check(x, y)
        key = id(built.program)
        if key not in self._bound:
            self._bound[key] = self.bind(built)
        names = (*x.names, *y.names, *w.names)
        arrays = [*x.arrays, *y.arrays, *w.arrays]
        kinds = [np.dtype(getattr(array, "dtype", object)) for array in arrays]
        form = Form(
            built, self._bound[key], (x.described(), y.described(), w.described()), names, len(x),
            tuple(k for k, kind in enumerate(kinds) if kind.kind == "f"),
            tuple(
                (names.index(name), limits.low, limits.high)
                for name, limits in built.ranges
                if name in names
            ),
            # numbers of a wider type may be beyond the range of that of the program
            bool(w.arrays or built.checks)
            or any(k.kind == "f" and k.itemsize > np.dtype(trainer.dtype).itemsize for k in kinds),
        )  # fmt: skip
        return form, arrays


def _plain(*item: Any) -> tuple[Any, list[np.ndarray]] | None:
    """What tells the form of a batch of NumPy arrays, and the arrays; None for any other."""
    key: list[Any] = []
    arrays: list[np.ndarray] = []
    for part in item:
        if type(part) is np.ndarray:
            key.append((part.dtype, part.shape))
            arrays.append(part)
        elif part is None:
            key.append(None)
        elif type(part) in (tuple, list) and all(type(a) is np.ndarray for a in part):
            key.append((type(part), *((a.dtype, a.shape) for a in part)))
            arrays += part
        else:
            return None
    return tuple(key), arrays
