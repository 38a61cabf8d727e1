"""Methods that take the whole data set for each step: L-BFGS and conjugate gradients.

Their steps are compiled (`fastnn/kernels/descent`): a program sums loss and gradient over the
data, a kernel moves the parameters along the line or takes the next direction. `Trainer.fit` runs
them; an iteration is an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastnn.errors import OptionError, check_whole
from fastnn.kernels.descent.search import HEAD
from fastnn.optim.common import MOST
from fastnn.optim.optimizer import Optimizer

FORMULAS = ("polak-ribiere", "fletcher-reeves")


class FullBatch(Optimizer):
    """Base of all methods that take the whole data set for each step.

    Attributes:
        state_size: numbers that it goes on from, beside the slots.
    """

    elementwise: ClassVar[bool] = False

    @property
    def state_size(self) -> int:
        return HEAD

    def _refuse_unknown(self) -> None:
        """(A subclass takes no options but its own.)"""


class LineSearch(FullBatch):
    """Base of the methods with a line search; see its subclasses."""

    #: how small the interval of the line search may become, relative to its upper end
    narrow: ClassVar[float] = 0.1
    pairs = 0

    @property
    def slots(self) -> tuple[str, ...]:
        history = [f"{letter}{k}" for letter in ("s", "y") for k in range(self.pairs)]
        return ("gradient", "origin", "before", "direction", *history)

    @property
    def state_size(self) -> int:
        from fastnn.kernels.descent.directions import numbers_needed

        return HEAD + numbers_needed(self.pairs)

    def check(self, options: Mapping[str, Any]) -> str | None:
        decrease, curvature = options["decrease"], options["curvature"]
        if not 0 < decrease < curvature < 1:
            return (
                "decrease and curvature: expected 0 < decrease < curvature < 1, got "
                f"{decrease} and {curvature}"
            )
        return "lr: expected a positive number, got 0" if not options["lr"] > 0 else None

    @property
    def kernel_name(self) -> str:
        return f"{self.name}{self.pairs or ''}_descend"

    def kernels(self) -> tuple[str, str]:
        from fastnn.kernels.descent.making import make_descend

        name = make_descend(self.kernel_name, self.pairs).name
        return name, name

    def operands(self) -> dict[str, float]:
        """The kernel's numbers."""
        given = self.options
        return {
            "first": given["lr"], "decrease": given["decrease"], "curvature": given["curvature"],
            "narrow": self.narrow, "most_trials": given["max_evaluations"],
            "tolerance_gradient": given["tolerance_gradient"],
            "tolerance_change": given["tolerance_change"], "weight_decay": given["weight_decay"],
        }  # fmt: skip


class LBFGS(LineSearch):
    """L-BFGS (Nocedal 1980; Liu & Nocedal 1989) with a strong-Wolfe line search (Moré & Thuente
    1994)::

        d = -H g              H from the last pairs s = p' - p, y = g' - g (two loops)
        p' = p + a d          f' <= f + decrease a g.d,  |g'.d| <= curvature |g.d|

    It uses the whole data set for each step: ``Trainer.fit`` passes it in blocks, and an epoch is
    one iteration. The loss must be deterministic (no dropout). Training ends when a tolerance is
    reached.

    Args:
        lr: the first step to try along a direction; 1 is right for L-BFGS.
        history_size: pairs that are kept; each takes twice the parameters' memory.
        decrease, curvature: constants of the Wolfe conditions.
        max_evaluations: most evaluations of loss and gradient in one line search.
        tolerance_gradient: stop where no element of the gradient is larger.
        tolerance_change: stop where an iteration lowers the loss by no more than this share of it.
        weight_decay: L2 regularisation: ``weight_decay / 2 * sum(p**2)`` is added to the loss.

    Raises OptionError for a `history_size` beyond 1 to 1,000, `max_evaluations` below 1, and as
    `Optimizer`.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    >>> trainer = fnn.Trainer(fnn.nn.Linear(4, 1), "mse", fnn.optim.LBFGS())
    >>> history = trainer.fit(x, x[:, :1], epochs=50, verbose=False)
    >>> bool(history["loss"][-1] < 1e-6)
    True
    """

    name: ClassVar[str] = "lbfgs"

    def __init__(
        self, lr: float = 1.0, history_size: int = 10, decrease: float = 1e-3,
        curvature: float = 0.9, max_evaluations: int = 20, tolerance_gradient: float = 1e-7,
        tolerance_change: float = 1e-9, weight_decay: float = 0.0,
    ):  # fmt: skip
        check_whole("LBFGS", 1, 1_000, history_size=history_size)
        check_whole("LBFGS", 1, MOST, max_evaluations=max_evaluations)
        self.pairs = int(history_size)
        super().__init__(
            lr=lr, weight_decay=weight_decay, history_size=history_size, decrease=decrease,
            curvature=curvature, max_evaluations=max_evaluations,
            tolerance_gradient=tolerance_gradient, tolerance_change=tolerance_change,
        )  # fmt: skip


class ConjugateGradient(LineSearch):
    """Non-linear conjugate gradients with a strong-Wolfe line search (Moré & Thuente 1994)::

        d = -g + beta d
        beta = max(0, g.(g - g_before) / g_before.g_before)      polak-ribiere
        beta = g.g / g_before.g_before                           fletcher-reeves

    (Polak & Ribière 1969, at least 0 as of Gilbert & Nocedal 1992; Fletcher & Reeves 1964, with
    Powell's restarts of 1977.) It restarts with steepest descent where beta is 0 or the direction
    hardly descends. Like `LBFGS` it uses the whole data set, and an epoch is one iteration.

    Args:
        lr: the largest first step to try along a direction.
        formula: "polak-ribiere" or "fletcher-reeves".
        restart: also restart after this many iterations; 0 means never for this reason.
        decrease, curvature, max_evaluations, tolerance_gradient, tolerance_change, weight_decay: as
            of `LBFGS`.

    Raises OptionError for an unknown `formula` and `max_evaluations` below 1, and as `Optimizer`.

    >>> trainer = fnn.Trainer(nn.Linear(4, 1), "mse", optim.ConjugateGradient(restart=10))
    """

    name: ClassVar[str] = "cg"
    narrow = 1e-14

    def __init__(
        self, lr: float = 1.0, formula: str = "polak-ribiere", restart: int = 0,
        decrease: float = 1e-4, curvature: float = 0.4, max_evaluations: int = 20,
        tolerance_gradient: float = 1e-7, tolerance_change: float = 1e-9,
        weight_decay: float = 0.0,
    ):  # fmt: skip
        if formula not in FORMULAS:
            raise OptionError(
                f"ConjugateGradient formula: expected one of {FORMULAS}, got {formula!r}"
            )
        check_whole("ConjugateGradient", 0, MOST, restart=restart)
        check_whole("ConjugateGradient", 1, MOST, max_evaluations=max_evaluations)
        self.formula = formula
        super().__init__(
            lr=lr, weight_decay=weight_decay, fletcher_reeves=FORMULAS.index(formula),
            restart=restart, decrease=decrease, curvature=curvature,
            max_evaluations=max_evaluations, tolerance_gradient=tolerance_gradient,
            tolerance_change=tolerance_change,
        )  # fmt: skip

    def operands(self) -> dict[str, float]:
        own = {name: int(self.options[name]) for name in ("fletcher_reeves", "restart")}
        return {**super().operands(), **own}
