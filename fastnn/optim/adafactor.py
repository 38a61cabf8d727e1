"""Adafactor: means of squares by rows and columns, and steps relative to the weights."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from fastnn.kernels.declare import helper
from fastnn.kernels.simd import fill_like, fma, maximum, minimum
from fastnn.kernels.update.shared import Pass
from fastnn.optim.common import above_zero, decoupled
from fastnn.optim.optimizer import Apply
from fastnn.optim.passes import Passes
from fastnn.optim.root import twice_root


class Adafactor(Passes):
    """Adafactor (Shazeer & Stern 2018, "Adafactor: adaptive learning rates with sublinear memory
    cost", algorithms 4 and 5), as in PyTorch. For a matrix of R rows and C columns::

        b = 1 - t**-decay_rate
        r = b * r + (1 - b) * means of g**2 over each row
        c = b * c + (1 - b) * means of g**2 over each column
        v = r * c / max(mean of r, eps)
        u = g / sqrt(max(v, eps**2))
        p = p - max(scale_eps, rms(p)) * min(lr, 1 / sqrt(t)) * u / max(1, rms(u) / threshold)

    with rms the root of the mean of squares. Parameters of other shapes (and matrices of one row or
    column) keep v itself: ``v = b * v + (1 - b) * g**2``; PyTorch factors the last two dimensions
    of larger ones.

    r and c are kept at the beginning of a slot of the parameter's size, so memory is not sublinear
    here: one slot where Adam has two.

    Args:
        lr: the largest relative step.
        decay_rate: of b, in (0, 1]: at 1 v is the mean of all squares so far (the paper's section
            7.2); beyond it, it would hardly see new gradients.
        eps: the least root of v.
        scale_eps: the least size of weights that steps are relative to, above 0: weights that
            begin at zero would stay there.
        threshold: the root mean square above which u is scaled down (the paper's d), above 0.
        weight_decay: decoupled, as in `AdamW`.
        groups, common: see `Optimizer`.

    >>> Adafactor().slots
    ('exp_avg_sq',)
    """

    name: ClassVar[str] = "adafactor"
    slots = ("exp_avg_sq",)

    decay_option = "decoupled_weight_decay"

    def __init__(
        self,
        lr: float = 1e-2,
        decay_rate: float = 0.8,
        eps: float = 2.0**-23,
        scale_eps: float = 1e-3,
        threshold: float = 1.0,
        weight_decay: float = 0.0,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ):
        super().__init__(
            lr=lr, decay_rate=decay_rate, eps=eps, scale_eps=scale_eps, threshold=threshold,
            decoupled_weight_decay=weight_decay, groups=decoupled(groups), **common,
        )  # fmt: skip

    def check(self, options: Mapping[str, Any]) -> str | None:
        if not 0 < options["decay_rate"] <= 1:
            return f"decay_rate: expected a number in (0, 1], got {options['decay_rate']}"
        return above_zero(options, "threshold", "scale_eps")

    @staticmethod
    def scalars(
        t: int, lr: float, decay_rate: float, eps: float, scale_eps: float, threshold: float
    ) -> tuple[float, ...]:
        rest = t ** (-decay_rate)
        return 1.0 - rest, rest, eps, -min(lr, 1.0 / sqrt(t)), scale_eps, threshold

    @property
    def passes(self) -> Mapping[str, Pass]:
        return {
            "squares": Pass(squares, (), ("g",), scalars=6, own=1, sums=1),
            "factored": Pass(factored, (), ("p", "g"), scalars=6, sums=2, factors=True),
            "whole": Pass(whole, ("exp_avg_sq",), ("p", "g"), scalars=6, sums=2),
            "update_whole": Pass(update_whole, ("p",), ("g", "exp_avg_sq"), scalars=6, own=1),
            "update": Pass(update_factored, ("p",), ("g",), scalars=6, own=1, factors=True),
        }

    @property
    def combines(self) -> Mapping[str, Any]:
        return {"size": (size, 2)}

    def place(
        self, apply: Apply, given: Mapping[str, Any], options: Mapping[str, Any], transposed: bool
    ) -> None:
        p = given["p"]
        if p.ndim != 2 or min(p.shape) < 2:
            sums = self.run("whole", apply, given)
            own = self.combine("size", apply, given, sums, p.size)
            self.run("update_whole", apply, given, own=own)
            return
        graph, (rows, columns) = p.graph, p.shape
        segment = "slots/exp_avg_sq"
        row = graph.leaf(("rows of", p), (rows,), segment, offset=p.offset, name=p.name)
        col = graph.leaf(
            ("columns of", p), (columns,), segment, offset=p.offset + rows, name=p.name
        )
        share = graph.constant(np.array([1 / p.size]), name="share")
        over = graph.value((columns,))
        sums = self.run("squares", apply, given, own=share)
        apply(
            "square_columns", g=given["g"], hyper=given["hyper"], own=share, scale=given["scale"],
            y=over,
        )  # fmt: skip
        scaled, roots = graph.value((rows,), name="scaled"), graph.value((columns,), name="roots")
        apply(
            "update_factors", sums=sums[0], cols=over, hyper=given["hyper"], row=row, col=col,
            scaled=scaled, roots=roots,
        )  # fmt: skip
        sums = self.run("factored", apply, given, row=scaled, col=roots)
        own = self.combine("size", apply, given, sums, p.size)
        self.run("update", apply, given, row=scaled, col=roots, own=own)


def squares(
    g: Any, beta: Any, rest: Any, eps: Any, rate: Any, least: Any, top: Any, share: Any
) -> tuple[Any, ...]:
    """g**2 divided by the number of elements, so that sums stay in range."""
    return (g * share * g,)


@helper
def step_of(g: Any, v: Any, eps: Any) -> Any:
    """u."""
    return g / (twice_root(maximum(v, v * 0.0 + eps * eps)) * 0.5)


@helper
def factored_step(g: Any, row: Any, col: Any, eps: Any) -> Any:
    """u, from 1 / the roots of both factors."""
    over = col * row
    return g * minimum(fill_like(over, 1.0 / eps), over)  # a NaN passes


def factored(
    p: Any, g: Any, row: Any, col: Any, beta: Any, rest: Any, eps: Any, rate: Any, least: Any,
    top: Any,
) -> tuple[Any, ...]:  # fmt: skip
    u = factored_step(g, row, col, eps)
    return p * p, u * u


def whole(
    v: Any, p: Any, g: Any, beta: Any, rest: Any, eps: Any, rate: Any, least: Any, top: Any
) -> tuple[Any, ...]:
    v = fma(g * rest, g, v * beta)
    u = step_of(g, v, eps)
    return v, p * p, u * u


def size(
    weights: Any, steps: Any, count: Any, beta: Any, rest: Any, eps: Any, rate: Any, least: Any,
    top: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The factor of u."""
    alpha = max(least, sqrt(weights / count)) * rate
    return (alpha / max(1.0, sqrt(steps / count) / top),)


def update_whole(
    p: Any, g: Any, v: Any, beta: Any, rest: Any, eps: Any, rate: Any, least: Any, top: Any,
    scaled: Any,
) -> tuple[Any, ...]:  # fmt: skip
    return (fma(step_of(g, v, eps), scaled, p),)


def update_factored(
    p: Any, g: Any, row: Any, col: Any, beta: Any, rest: Any, eps: Any, rate: Any, least: Any,
    top: Any, scaled: Any,
) -> tuple[Any, ...]:  # fmt: skip
    return (fma(factored_step(g, row, col, eps), scaled, p),)
