"""Which step of a generation is made, and positions of steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import (
    DataError,
    OptionError,
    ShapeError,
    check_numbers,
    check_whole,
    where,
)
from fastnn.graph.node import Check
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.ops.lengths import steps_within
from fastnn.ops.operands import as_value
from fastnn.public import publish


class Place:
    """Which step of a generation is made, for each sample: what caches and positions go by.

    Args:
        written: what `start` gives, or the state that a loop carries: shape (batch, steps), 1 for
            the steps made before, else 0.

    Attributes:
        now: shape (batch, steps, 1), 1 for this step.
        after: shape (batch, steps), what the next step is given.
        number: this step's number, integers of shape (batch,).
        lengths: steps up to this one, integers of shape (batch,).

    Raises:
        ShapeError: `written` is something else, or has fewer steps than the loop that makes them.
            DataError, when data come in: all steps of a sample are made.
    """

    def __init__(self, written: Value):
        if not isinstance(written, Value) or written.ndim != 2 or written.dtype != "f":
            raise ShapeError(
                "Place: expected a symbolic mask of shape (batch, steps), as Place.start gives it, "
                f"got {written if isinstance(written, Value) else type(written).__name__}"
            )
        graph, (batch, steps) = written.graph, written.shape
        if graph.loops and graph.loops[-1] > steps:
            raise ShapeError(
                f"{where(graph.scope)}Place: expected room for the loop's {graph.loops[-1]} steps, "
                f"got {steps}; give Place.start and the caches as many steps"
            )
        if written.root.segment == "input":
            graph.checks.append(Check((written.root,), _Room(graph.scope)))
        one = graph.full((batch, 1), 1.0, batched=True)
        ahead = one if steps == 1 else ops.concatenate(one, ops.columns(written, 0, steps - 1))
        self.now = ops.reshape(ops.subtract(ahead, written), (batch, steps, 1))
        self.number, self.lengths = steps_within(written), steps_within(ahead)
        self.after = ops.affine(ahead, 1.0, 0.0)  # last: it may be written where `written` was

    @staticmethod
    def start(x: Value, steps: int) -> Value:
        """The state before the first step, for each sample of x."""
        return x.graph.full((x.shape[0], steps), 0.0, batched=True)


class _Room:
    """Masks of the steps made before, as a `Place` takes them from outside.

    Args:
        scope: of the place.
    """

    def __init__(self, scope: str):
        self.scope = scope

    def __call__(self, written: np.ndarray) -> None:
        """Raise DataError, which names the sample, where no step is left."""
        full = (written != 0).all(axis=1)
        if full.any():
            raise DataError(
                f"{where(self.scope)}Place: expected a step left of {written.shape[1]}, got sample "
                f"{int(full.argmax())} with all of them made; start again from its last ones, or "
                "give Place.start and the caches more steps"
            )


def _waves(steps: int, size: int, base: float) -> np.ndarray:
    """Angles of `size` frequencies at each step, shape (steps, size)."""
    return np.arange(steps)[:, None] * base ** (-np.arange(size) / size)


class SinusoidalPositions(Module):
    """Adds sines and cosines of a step's number to its features (Vaswani et al. 2017)::

        y[t, 2i] = x[t, 2i] + sin(t / base^(2i/C)),  y[t, 2i+1] = x[t, 2i+1] + cos(t / base^(2i/C))

    Args:
        features: C, the size of the last dimension.
        base: the longest wave is 2 pi times as many steps.

    Shapes: input and output (batch, steps, C); with a `Place`, one step, (batch, C).

    Raises OptionError for `features` below 1; ShapeError for another number of features.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.SinusoidalPositions(4).predict(np.zeros((1, 2, 4)))[0, 1].round(3)
    array([0.841, 0.54 , 0.01 , 1.   ], dtype=float32)
    """

    def __init__(self, features: int, base: float = 10000.0):
        check_whole(type(self).__name__, 1, features=features)
        check_numbers(type(self).__name__, base=base)
        self.features, self.base = features, float(base)

    def table(self, steps: int) -> np.ndarray:
        """What is added to so many steps, shape (steps, C)."""
        angles = _waves(steps, -(-self.features // 2), self.base)
        both = np.stack([np.sin(angles), np.cos(angles)], -1)
        return both.reshape(steps, -1)[:, : self.features]

    def forward(self, x: Value, place: Place | None = None) -> Value:
        _check_steps(self, x, self.features, place)
        if place is None:
            return ops.add(x, self.table(x.shape[1]))
        return ops.add(x, _row_of(self.table(place.now.shape[1]), place))

    def extra(self) -> str:
        return f"{self.features}"


def _row_of(table: np.ndarray, place: Place) -> Value:
    """The row of a constant table for each sample's step, shape (batch, columns)."""
    return ops.embedding(place.number, table)


class LearnedPositions(Module):
    """Adds a trained vector for each step's number to its features.

    Args:
        max_steps: how many steps there are at most.
        features: C, the size of the last dimension.
        weight_init: initialiser of `weight`; normal with a deviation of 0.02 by default.

    Attributes:
        weight: the vectors, shape (max_steps, C).

    Shapes: input and output (batch, steps, C); with a `Place`, one step, (batch, C).

    Raises OptionError for sizes below 1; ShapeError for another number of features, and for more
    steps than `max_steps`.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.LearnedPositions(10, 4).predict(np.zeros((1, 2, 4))).shape
    (1, 2, 4)
    """

    def __init__(self, max_steps: int, features: int, weight_init: Any = None):
        check_whole("LearnedPositions", 1, max_steps=max_steps, features=features)
        self.max_steps, self.features = max_steps, features
        fill = init.get("normal", std=0.02) if weight_init is None else weight_init
        self.weight = Parameter((max_steps, features), fill)

    def forward(self, x: Value, place: Place | None = None) -> Value:
        _check_steps(self, x, self.features, place)
        steps = x.shape[1] if place is None else place.now.shape[1]
        if steps > self.max_steps:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected at most {self.max_steps} steps, got "
                f"{steps}; make max_steps larger, or cut the sequences"
            )
        if place is not None:
            return ops.add(x, ops.embedding(place.number, self.weight))
        return ops.add(x, as_value(x.graph, self.weight)[:steps])

    def extra(self) -> str:
        return f"{self.max_steps}, {self.features}"


def _check_steps(layer: Module, x: Value, features: int, place: Place | None) -> None:
    if x.ndim != (3 if place is None else 2) or x.shape[-1] != features:
        wanted = f"(batch, steps, {features})" if place is None else f"(batch, {features})"
        raise ShapeError(
            f"{where(x.graph.scope)}{layer!r}: expected input of shape {wanted}, got {x.shape}; "
            f"set features to {x.shape[-1]}, or reshape the input"
        )


class RotaryPositions(Module):
    """Turns pairs of a head's numbers by angles that grow with the step (Su et al. 2021,
    "RoFormer"), so that products of queries and keys depend on how far they are apart.

    Number i is paired with number i + D/2 (as in GPT-NeoX and Llama; the paper pairs neighbours,
    which is the same with columns in another order)::

        y[i] = x[i] cos(a) - x[i + D/2] sin(a),  y[i + D/2] = x[i + D/2] cos(a) + x[i] sin(a)

    with a = t / base^(2i/D).

    Args:
        size: D, the numbers of a head, even.
        base: the longest wave is 2 pi times as many steps.

    Shapes: input and output (batch, steps, heads * D).

    Raises OptionError for a `size` that is odd or below 2; ShapeError for a last dimension that is
    not the heads' sizes together.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.RotaryPositions(2).predict(np.array([[[1.0, 0.0], [1.0, 0.0]]]))[0].round(3)
    array([[1.   , 0.   ],
           [0.54 , 0.841]], dtype=float32)
    """

    def __init__(self, size: int, base: float = 10000.0):
        check_whole("RotaryPositions", 2, size=size)
        check_numbers("RotaryPositions", base=base)
        if size % 2:
            raise OptionError(f"RotaryPositions: expected an even size, got {size}")
        self.size, self.base = size, float(base)

    def forward(self, x: Value, heads: int | None = None, place: Place | None = None) -> Value:
        heads = x.shape[-1] // self.size if heads is None else heads
        if x.ndim != 3 or x.shape[-1] != heads * self.size:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (batch, steps, "
                f"{heads * self.size}), got {x.shape}; set size to a head's numbers"
            )
        steps = x.shape[1] if place is None else place.now.shape[1]
        angles = _waves(steps, self.size // 2, self.base)
        cosine, sine = (np.concatenate([f(angles)] * 2, -1) for f in (np.cos, np.sin))
        sine[:, : self.size // 2] *= -1.0
        factors: list[Any] = [np.tile(table, (1, heads)) for table in (cosine, sine)]
        if place is not None:
            rows = [_row_of(table, place) for table in factors]
            factors = [ops.reshape(row, (row.shape[0], 1, row.shape[1])) for row in rows]
        parts = ops.reshape(x, (*x.shape[:2], heads, 2, self.size // 2))
        turned = ops.reshape(ops.flip(parts, 3), x.shape)
        return ops.add(ops.multiply(x, factors[0]), ops.multiply(turned, factors[1]))

    def extra(self) -> str:
        return f"{self.size}"


publish(globals(), type)
