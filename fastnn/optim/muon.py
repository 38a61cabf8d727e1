"""Muon: momentum whose singular values are made equal."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from fastnn.kernels.simd import fma
from fastnn.kernels.update.shared import Pass
from fastnn.optim.common import below_one, betas_of, decoupled
from fastnn.optim.optimizer import Apply
from fastnn.optim.passes import Passes
from fastnn.optim.root import over_root

#: of the odd polynomial that brings singular values near 1 (Jordan et al. 2024)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
COUNT = 9


class Muon(Passes):
    """Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"), for
    each matrix::

        m = momentum * m + (1 - momentum) * g
        u = momentum * m + (1 - momentum) * g                (nesterov; otherwise m)
        X = u / |u|
        X = a X + (b A + c A A) X,  A = X X^T                (`steps` times: Newton-Schulz)
        p = p - lr * size * X

    with a, b, c = 3.4445, -4.7750, 2.0315 and the Euclidean norm, which makes all singular values
    of X about 1 (between 0.7 and 1.2). `size` is 0.2 * sqrt(max(rows, columns)), which makes steps
    as large as AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"); with
    ``match_rms=False`` sqrt(max(1, rows / columns)), of the matrix as users see it, and rates are
    some 20 times larger. PyTorch's Muon has that by default, and computes X in bfloat16.

    Parameters that are not matrices, and those in groups with ``orthogonal=False`` (embeddings, the
    last layer), are updated by AdamW's rule at the same rate, which needs a second slot.

    Args:
        lr: learning rate.
        momentum: in [0, 1).
        nesterov: Nesterov's momentum.
        steps: Newton-Schulz steps, at least 1.
        match_rms: see above.
        betas, eps: of AdamW's rule.
        weight_decay: decoupled, as in `AdamW`.
        orthogonal: whether matrices are updated by Muon's rule; for groups.
        groups, common: see `Optimizer`.

    >>> Muon(groups={"embed.*": {"orthogonal": False}}).slots
    ('momentum_buffer', 'exp_avg_sq')
    """

    name: ClassVar[str] = "muon"
    slots = ("momentum_buffer", "exp_avg_sq")

    decay_option = "decoupled_weight_decay"

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        match_rms: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        orthogonal: bool = True,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ):
        beta1, beta2 = betas_of(betas)
        super().__init__(
            lr=lr, momentum=momentum, nesterov=nesterov, steps=steps, match_rms=match_rms,
            beta1=beta1, beta2=beta2, eps=eps, orthogonal=orthogonal,
            decoupled_weight_decay=weight_decay, groups=decoupled(groups), **common,
        )  # fmt: skip

    def check(self, options: Mapping[str, Any]) -> str | None:
        steps = options["steps"]
        if steps != int(steps) or not 1 <= steps <= 100:
            return f"steps: expected a whole number from 1 to 100, got {steps}"
        if steps != self.options["steps"]:
            return "steps: expected the same for all parameters"
        return below_one(options, "momentum", "beta1", "beta2")

    @staticmethod
    def scalars(
        t: int, lr: float, momentum: float, nesterov: float, steps: float, match_rms: float,
        beta1: float, beta2: float, eps: float, orthogonal: float,
    ) -> tuple[float, ...]:  # fmt: skip
        ahead = momentum if nesterov != 0.0 else 1.0
        return (
            -lr, momentum, 1.0 - momentum, ahead, 1.0 / (1.0 - beta1**t),
            1.0 / sqrt(1.0 - beta2**t), beta1, beta2, eps,
        )  # fmt: skip

    @property
    def passes(self) -> Mapping[str, Pass]:
        given = {"scalars": COUNT}
        return {
            "momentum": Pass(momenta, ("momentum_buffer",), ("g",), ("u",), sums=1, **given),
            "scale": Pass(scale, ("u",), own=2, **given),
            "adam": Pass(adam, ("p", *self.slots), ("g",), **given),
            "update": Pass(update, ("p",), ("x",), own=2, **given),
        }

    @property
    def combines(self) -> Mapping[str, Any]:
        return {"norm": (norm, 1)}

    def place(
        self, apply: Apply, given: Mapping[str, Any], options: Mapping[str, Any], transposed: bool
    ) -> None:
        p = given["p"]
        if p.ndim != 2 or not options["orthogonal"]:
            self.run("adam", apply, given)
            return
        u = p.graph.value(p.shape, name="u")
        sums = self.run("momentum", apply, given, u=u)
        rows, columns = p.shape[::-1] if transposed else p.shape
        size = 0.2 * sqrt(max(p.shape)) if options["match_rms"] else sqrt(max(1, rows / columns))
        own = self.combine("norm", apply, given, sums, size)
        self.run("scale", apply, given, u=u, own=own)
        x = newton_schulz(u, int(options["steps"]))
        self.run("update", apply, given, x=x, own=own)


def newton_schulz(x: Any, steps: int) -> Any:
    """The odd polynomial of all singular values, so many times.

    In the shorter side's m numbers: X = P X with P = a I + b A + c A A. All A and P are polynomials
    of the first A, and so commute: where the other side has more than 1.5 m numbers it takes fewer
    multiply-adds to go on with A = P A P and the product of all P, and multiply X once.
    """
    a, b, c = COEFFICIENTS
    wide = x.shape[0] <= x.shape[1]
    short, long = min(x.shape), max(x.shape)
    unit = x.graph.constant(a * np.eye(short), name="unit")
    apart = 2 * long > 3 * short
    square, whole = _square(x, wide), None
    for step in range(steps):
        p = square * b + (square @ square) * c + unit
        more = step + 1 < steps
        if apart:
            whole = p if whole is None else whole @ p
            square = p @ square @ p if more else square
        else:
            x = p @ x if wide else x @ p
            square = _square(x, wide) if more else square
    if whole is None:
        return x
    return whole @ x if wide else x @ whole


def _square(x: Any, wide: bool) -> Any:
    """X X^T of the shorter side."""
    return x @ x.T if wide else x.T @ x


def momenta(
    m: Any, g: Any, rate: Any, momentum: Any, rest: Any, ahead: Any, mean: Any,
    square: Any, beta1: Any, beta2: Any, eps: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The momentum, what is made orthogonal, and its square."""
    m = fma(m, momentum, g * rest)
    u = fma(m, ahead, g * (1.0 - ahead))
    return m, u, u * u


def norm(
    total: Any, size: Any, rate: Any, momentum: Any, rest: Any, ahead: Any, mean: Any,
    square: Any, beta1: Any, beta2: Any, eps: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The factor that makes the norm 1, and that of the step."""
    return 1.0 / max(sqrt(total), 1e-7), rate * size


def scale(
    u: Any, rate: Any, momentum: Any, rest: Any, ahead: Any, mean: Any, square: Any, beta1: Any,
    beta2: Any, eps: Any, factor: Any, scaled: Any,
) -> tuple[Any, ...]:  # fmt: skip
    return (u * factor,)


def update(
    p: Any, x: Any, rate: Any, momentum: Any, rest: Any, ahead: Any, mean: Any, square: Any,
    beta1: Any, beta2: Any, eps: Any, factor: Any, scaled: Any,
) -> tuple[Any, ...]:  # fmt: skip
    return (fma(x, scaled, p),)


def adam(
    p: Any, m: Any, v: Any, g: Any, rate: Any, momentum: Any, rest: Any, ahead: Any, mean: Any,
    square: Any, beta1: Any, beta2: Any, eps: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """AdamW's rule."""
    m = fma(m, beta1, g * (1.0 - beta1))
    v = fma(g * (1.0 - beta2), g, v * beta2)
    return fma(over_root(m, v, square, eps), rate * mean, p), m, v
