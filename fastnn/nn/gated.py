"""Units with gates: half of the features decide what passes of the other half."""

from __future__ import annotations

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, is_whole, where
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.ops.layout import from_last, to_last
from fastnn.public import publish


class _Gated(Module):
    """Halves of an axis, of which the second one is the gate."""

    def __init__(self, axis: int = -1):
        if not (is_whole(axis, -100) and axis != 0):
            raise OptionError(f"{type(self).__name__}: expected an axis of the sample, got {axis}")
        self.axis = int(axis)

    def _gated(self, x: Value) -> Value:
        """The op along the last axis."""
        raise NotImplementedError

    def forward(self, x: Value) -> Value:
        inside = -x.ndim < self.axis < x.ndim
        if not inside or x.shape[self.axis] % 2:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected an even number of features along axis "
                f"{self.axis}, got input of shape {x.shape}"
            )
        axis = self.axis % x.ndim
        if axis == x.ndim - 1:
            return self._gated(x)
        if axis == 1 and x.ndim in (3, 4):  # channels, which layers beside it have last
            last = to_last(x, x.ndim - 2, "first", type(self).__name__)
            return from_last(self._gated(last), "first")
        return ops.swapaxes(self._gated(ops.swapaxes(x, axis, -1)), axis, -1)

    def extra(self) -> str:
        return "" if self.axis == -1 else f"axis={self.axis}"


class GLU(_Gated):
    """The gated linear unit: a * sigmoid(b) for the halves a and b of the features (Dauphin et al.
    2017).

    Args:
        axis: along which the features lie.

    Shapes: (batch, ..., 2 C) to (batch, ..., C).

    Raises OptionError for axis 0, the batch; ShapeError for an odd number of features.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.GLU().predict(np.array([[3.0, 4.0, 0.0, 100.0]]))
    array([[1.5, 4. ]], dtype=float32)
    """

    def _gated(self, x: Value) -> Value:
        return ops.glu(x)


class GTU(_Gated):
    """The gated tanh unit: tanh(a) * sigmoid(b) for the halves a and b of the features, as in
    WaveNet (van den Oord et al. 2016).

    Args:
        axis: along which the features lie.

    Shapes: (batch, ..., 2 C) to (batch, ..., C).

    Raises OptionError for axis 0, the batch; ShapeError for an odd number of features.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.GTU().predict(np.array([[100.0, 0.0]]))
    array([[0.5]], dtype=float32)
    """

    def _gated(self, x: Value) -> Value:
        return ops.gtu(x)


publish(globals(), type)
