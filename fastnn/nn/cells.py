"""Single steps of recurrent nets, built from ordinary ops."""

from __future__ import annotations

import math
from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_flags, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.public import publish


class _Cell(Module):
    """What the cells share; one step of the layer of the same name.

    Args:
        input_size: features I of the input.
        hidden_size: units H.
        bias: whether there are biases.

    Attributes:
        weight_ih, weight_hh, bias_ih, bias_hh: PyTorch's names, shapes and order of gates.
    """

    gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True):
        check_whole(type(self).__name__, 1, input_size=input_size, hidden_size=hidden_size)
        check_flags(type(self).__name__, bias=bias)
        self.input_size, self.hidden_size = input_size, hidden_size
        bound = 1.0 / math.sqrt(hidden_size)
        fill = init.get("uniform", low=-bound, high=bound)
        width = self.gates * hidden_size
        self.weight_ih = Parameter((width, input_size), fill, transposed=True)
        self.weight_hh = Parameter((width, hidden_size), fill, transposed=True)
        self.bias_ih = Parameter((width,), fill) if bias else None
        self.bias_hh = Parameter((width,), fill) if bias else None

    def _check(self, x: Value) -> None:
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (batch, "
                f"{self.input_size}), got {x.shape}; change input_size or reshape the input"
            )

    def _start(self, x: Value) -> Value:
        """The state of zeros."""
        return x.graph.full((x.shape[0], self.hidden_size), 0.0, x.batched)

    def _sums(self, x: Value, h: Value) -> tuple[Value, Value]:
        """x W_ih + b_ih and h W_hh + b_hh."""
        return (
            ops.linear(x, self.weight_ih, self.bias_ih),
            ops.linear(h, self.weight_hh, self.bias_hh),
        )

    def _gate(self, sums: Value, place: int) -> Value:
        return ops.columns(sums, place * self.hidden_size, (place + 1) * self.hidden_size)

    def extra(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


class RNNCell(_Cell):
    """One step of `RNN`: ``h = cell(x, h)``.

    Shapes: x (batch, input_size), h (batch, hidden_size) or None for zeros.

    Args:
        nonlinearity: "tanh", "relu" or "sigmoid".
        input_size, hidden_size, bias: see `_Cell`.

    Raises OptionError for sizes below 1 and an unknown `nonlinearity`; ShapeError for another input
    size.

    >>> nn.RNNCell(8, 16).predict(np.ones((4, 8), np.float32), np.zeros((4, 16), np.float32)).shape
    (4, 16)
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"
    ):
        if nonlinearity not in ("tanh", "relu", "sigmoid"):
            raise OptionError(
                f"RNNCell: expected nonlinearity 'tanh', 'relu' or 'sigmoid', got {nonlinearity!r}"
            )
        super().__init__(input_size, hidden_size, bias)
        self.nonlinearity = nonlinearity

    def forward(self, x: Value, state: Value | None = None) -> Value:
        self._check(x)
        a, b = self._sums(x, self._start(x) if state is None else state)
        result: Value = getattr(ops, self.nonlinearity)(ops.add(a, b))
        return result


class LSTMCell(_Cell):
    """One step of `LSTM`: ``h, c = cell(x, (h, c))``.

    Shapes: x (batch, input_size), h and c (batch, hidden_size); None instead of the pair for
    zeros.

    Raises OptionError for sizes below 1; ShapeError for another input size.

    >>> class Once(nn.Module):
    ...     def __init__(self):
    ...         self.cell = nn.LSTMCell(8, 16)
    ...     def forward(self, x):
    ...         return self.cell(x, None)
    >>> [part.shape for part in Once().predict(np.ones((4, 8), np.float32))]
    [(4, 16), (4, 16)]
    """

    gates = 4

    def forward(self, x: Value, state: Any = None) -> tuple[Value, Value]:
        self._check(x)
        h, c = (self._start(x), self._start(x)) if state is None else state
        sums = ops.add(*self._sums(x, h))
        i, f, o = (ops.sigmoid(self._gate(sums, place)) for place in (0, 1, 3))
        g = ops.tanh(self._gate(sums, 2))
        after = ops.add(ops.multiply(f, c), ops.multiply(i, g))
        return ops.multiply(o, ops.tanh(after)), after


class GRUCell(_Cell):
    """One step of `GRU` with the reset after the product: ``h = cell(x, h)``. `bias` says whether
    there are bias vectors.

    Shapes: x (batch, input_size), h (batch, hidden_size) or None for zeros.

    Raises OptionError for sizes below 1; ShapeError for another input size.

    >>> nn.GRUCell(8, 16).predict(np.ones((4, 8), np.float32), np.zeros((4, 16), np.float32)).shape
    (4, 16)
    """

    gates = 3

    def forward(self, x: Value, state: Value | None = None) -> Value:
        self._check(x)
        h = self._start(x) if state is None else state
        a, b = self._sums(x, h)
        r, z = (ops.sigmoid(ops.add(self._gate(a, k), self._gate(b, k))) for k in (0, 1))
        n = ops.tanh(ops.add(self._gate(a, 2), ops.multiply(r, self._gate(b, 2))))
        return ops.add(n, ops.multiply(z, ops.subtract(h, n)))


publish(globals(), type)
