"""Surfaces of two numbers, and the paths that optimisers take on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnn import ops, optim
from fastnn.errors import NonFiniteError, OptionError, check_whole
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.plot._figure import Path, done, grid
from fastnn.runtime import devices
from fastnn.train.step import compile as compile_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: what is drawn of heights on a logarithmic scale
LOWEST = 1e-12
#: places further away are not drawn
FAR = 1e9


@dataclass(frozen=True)
class Surface:
    """A height over a plane.

    Attributes:
        height: function of x and y: arrays, or symbolic values.
        begin: where paths begin.
        low, high: corners of what is drawn.
    """

    height: Callable[[Any, Any], Any]
    begin: tuple[float, float]
    low: tuple[float, float] = (-2.0, -2.0)
    high: tuple[float, float] = (2.0, 2.0)


def _exp(value: Any) -> Any:
    return np.exp(value) if isinstance(value, (np.ndarray, np.generic, float)) else ops.exp(value)


#: by name: what optimisers have to cope with
SURFACES: dict[str, Surface] = {
    # one direction is fifty times as steep as the other
    "valley": Surface(lambda x, y: 0.5 * (0.02 * x * x + y * y), (-4.0, 1.0), (-5, -2), (2, 2)),
    # Rosenbrock 1960: the valley is bent
    "rosenbrock": Surface(
        lambda x, y: (1 - x) ** 2 + 100 * (y - x * x) ** 2, (-1.0, 1.0), (-1.5, -0.5), (1.5, 2)
    ),
    # the path begins a little beside the ridge; minima at y = -1 and y = 1
    "saddle": Surface(lambda x, y: 0.5 * x * x + 0.25 * (y * y - 1) ** 2, (1.0, 1e-3)),
    # far from the minimum the slope is nearly 0
    "plateau": Surface(
        lambda x, y: 1.0 - _exp(-0.5 * (x * x + y * y)), (-2.5, 1.5), (-3, -3), (3, 3)
    ),
    # a shallow minimum on the way to the deeper one
    "local minimum": Surface(
        lambda x, y: 0.05 * (x**4 - 8.0 * x * x) + 0.15 * x + 0.5 * y * y,
        (3.0, 1.0), (-3.5, -2), (3.5, 2),
    ),
}  # fmt: skip


class _Point(Module):
    """Two numbers; its output is the height there."""

    def __init__(self, surface: Surface, begin: tuple[float, float]) -> None:
        self.place = Parameter((2,), "zeros")
        self.surface = surface
        self.place.value = begin

    def forward(self, x: Any) -> Any:
        """x (batch, 2), of ones."""
        at = x * self.place
        return self.surface.height(at[:, 0], at[:, 1])


def descend(
    surface: str | Surface,
    optimizer: str | optim.Optimizer,
    steps: int = 100,
    begin: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """The path of an optimiser on a surface, in float64: shape (steps + 1, 2), fewer where a step
    would leave all numbers.

    Args:
        surface: a surface, or a name in `SURFACES`.
        optimizer: as for `Trainer`; it sees the exact gradient in each step.
        steps: how many.
        begin: where it begins; by default where the surface says.

    Raises:
        OptionError: an unknown surface or optimiser, no steps.

    >>> import fastnn as fnn
    >>> path = fnn.plot.descend("valley", fnn.optim.SGD(lr=1.0), steps=200)
    >>> path.shape, bool(abs(path[-1]).max() < 0.1)
    ((201, 2), True)
    """
    check_whole("descend", 1, steps=steps)
    where = _surface(surface)
    model = _Point(where, where.begin if begin is None else begin)

    def height(output: Any, target: Any) -> Any:
        return ops.mean(output)

    step = compile_step(model, height, optimizer, dtype="float64", device=devices.HOST, workers=1)
    ones, nothing = np.ones((1, 2)), np.zeros(1)
    path = [np.array(model.place.value, np.float64)]
    for _ in range(steps):
        try:
            step(ones, nothing)
        except NonFiniteError:
            break
        path.append(np.array(model.place.value, np.float64))
    return np.array(path)


def optimizer_paths(
    surface: str | Surface,
    optimizers: Mapping[str, str | optim.Optimizer],
    steps: int = 100,
    path: Path = None,
) -> Figure:
    """Draw the paths of optimisers on a surface of two numbers, and the height over the steps.

    Args:
        surface: a surface, or a name in `SURFACES`: "valley", "rosenbrock", "saddle", "plateau",
            "local minimum".
        optimizers: by label.
        steps: how many each takes.
        path: where the picture is saved.

    Raises:
        OptionError: an unknown surface or optimiser, no steps, no optimisers.

    >>> import fastnn as fnn
    >>> ways = {"SGD": fnn.optim.SGD(lr=1.5), "momentum": fnn.optim.SGD(lr=0.3, momentum=0.9)}
    >>> len(fnn.plot.optimizer_paths("valley", ways, steps=50).axes)
    2
    """
    where = _surface(surface)
    if not optimizers:
        raise OptionError("optimizer_paths: expected at least one optimiser, got none")
    if not isinstance(optimizers, Mapping):
        raise OptionError(
            "optimizer_paths: expected a dict of optimisers by label, got a "
            f"{type(optimizers).__name__}"
        )
    paths = {label: descend(where, optimizer, steps) for label, optimizer in optimizers.items()}
    figure, (above, curve) = grid(2, 5.4, 4.2)
    x, y = (np.linspace(a, b, 200) for a, b in zip(where.low, where.high, strict=True))
    heights = np.asarray(where.height(x[None, :], y[:, None]))
    least = float(heights.min())
    above.contourf(x, y, np.log1p(heights - least), 30, cmap="Greys")
    for label, way in paths.items():
        inside = way[(np.abs(way) < FAR).all(axis=1)]
        above.plot(*inside.T, ".-", markersize=3, linewidth=1, label=label)
        curve.plot(np.asarray(where.height(inside[:, 0], inside[:, 1])), label=label)
    above.plot(*where.begin, "k+", markersize=10)
    above.set_xlim(where.low[0], where.high[0])
    above.set_ylim(where.low[1], where.high[1])
    above.set_xlabel("x")
    above.set_ylabel("y")
    if least >= 0:
        curve.set_yscale("log")
        drawn = np.concatenate([line.get_ydata() for line in curve.lines])
        shown = drawn[drawn > LOWEST]
        if shown.size:  # limits of matplotlib's own reach as far above as below
            curve.set_ylim(shown.min() / 2, shown.max() * 2)
    curve.set_xlabel("step")
    curve.set_ylabel("height")
    curve.grid(alpha=0.3)
    above.legend(fontsize="small")
    return done(figure, path)


def _surface(surface: str | Surface) -> Surface:
    if isinstance(surface, Surface):
        return surface
    if surface not in SURFACES:
        raise OptionError(f"surface: expected one of {list(SURFACES)}, got {surface!r}")
    return SURFACES[surface]
