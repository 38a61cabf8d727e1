"""Activation functions with their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import ops
from fastnn.errors import FastnnError, OptionError, check_numbers
from fastnn.nn.module import Module
from fastnn.plot._figure import Path, done, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: those that are drawn by default
NAMES = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus")
POINTS = 401


class _WithSlope(Module):
    """The first output of a function of rows, and its slopes by the row's numbers."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def forward(self, x: Any) -> Any:
        y = self.function(x)[:, 0]
        return y, ops.gradient(ops.sum(y), x)


def _drawn(function: Callable[[Any], Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and slopes of rows (x, 0), or of x where the function takes a single number only."""
    first: FastnnError | None = None
    for row in (np.stack([x, np.zeros_like(x)], axis=1), x.reshape(-1, 1)):
        try:
            y, slopes = _WithSlope(function).to("float64").predict(row, batch_size=POINTS)
        except FastnnError as error:
            first = first or error
        else:
            return y, slopes
    raise first or AssertionError


def activations(
    names: Sequence[str | Callable[[Any], Any]] = NAMES,
    low: float = -4.0,
    high: float = 4.0,
    path: Path = None,
) -> Figure:
    """Draw activation functions, with their gradients dashed.

    The functions are computed exactly as in a model, and the gradients by differentiation. Of a
    function that takes several numbers at once, such as softmax, it is the first output for
    (x, 0), and its gradient by x; the title says so.

    Args:
        names: names in `fastnn.ops`, or functions of a symbolic value, such as layers.
        low, high: the range of inputs.
        path: where the picture is saved.

    Raises:
        OptionError: an unknown name, or an empty range.

    >>> import fastnn as fnn
    >>> figure = fnn.plot.activations(["gelu", lambda x: x * fnn.ops.sigmoid(1.7 * x)])
    >>> len(figure.axes)
    2
    """
    check_numbers("activations", low=low, high=high)
    if not low < high:
        raise OptionError(f"activations: expected low < high, got {low} and {high}")
    functions: dict[str, Callable[[Any], Any]] = {}
    for name in names:
        if callable(name):
            label = type(name).__name__ if isinstance(name, Module) else name.__name__
            functions[f"function {len(functions) + 1}" if label == "<lambda>" else label] = name
        elif hasattr(ops, str(name)):
            functions[str(name)] = getattr(ops, str(name))
        else:
            raise OptionError(f"activations: expected names such as {list(NAMES)}, got {name!r}")
    if not functions:
        raise OptionError("activations: expected at least one name, got none")
    x = np.linspace(low, high, POINTS)
    figure, axes = grid(len(functions), 3.2, 2.6, 3)
    for (label, function), ax in zip(functions.items(), axes, strict=True):
        y, slopes = _drawn(function, x)
        ax.axhline(0.0, color="0.8", linewidth=0.8)
        ax.axvline(0.0, color="0.8", linewidth=0.8)
        ax.plot(x, y, label="function")
        ax.plot(x, slopes[:, 0], "--", label="gradient")
        ax.set_title(f"{label} of (x, 0)" if slopes[:, 1:].any() else label)
    axes[0].legend(fontsize="small")
    return done(figure, path)
