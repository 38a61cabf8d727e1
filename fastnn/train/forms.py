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

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer


@dataclass(frozen=True)
class Form:
    """What batches of the same element types and shapes have in common.

    Attributes:
        built, bound: the step that serves them.
        parts: inputs, targets and sample weights of one of them.
        names: of all arrays, in order.
        size: samples.
    """

    built: Built
    bound: Bound
    parts: tuple[Arrays, Arrays, Arrays]
    names: tuple[str, ...]
    size: int

    @property
    def nbytes(self) -> int:
        """About how much memory it holds alone, on the host."""
        return int(self.bound.nbytes)

    def filled(self, arrays: list[Any]) -> tuple[Arrays, Arrays, Arrays]:
        """Another batch's arrays as inputs, targets and sample weights."""
        x, y, w = self.parts
        a, b = len(x.arrays), len(x.arrays) + len(y.arrays)
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
        if key not in self._known:
            form, found = self._new(x, y, w)
            if all(a is b for a, b in zip(arrays, found, strict=True)):  # not cast
                self._known[key] = form
            return form, found
        form = self._known[key]
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
        form = Form(built, self._bound[key], (x, y, w), names, len(x))
        return form, [*x.arrays, *y.arrays, *w.arrays]


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
