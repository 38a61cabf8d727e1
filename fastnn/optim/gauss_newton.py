"""Methods that solve with the Gauss-Newton matrix: Levenberg-Marquardt, Hessian-free.

Like those of `full_batch.py` they use the whole data set for each step, and an epoch is one
iteration. What they compute is in `fastnn/train/gauss_newton.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastnn.errors import check_whole
from fastnn.kernels.descent.gauss_newton import SIZE
from fastnn.optim.common import MOST
from fastnn.optim.full_batch import FullBatch

if TYPE_CHECKING:
    from fastnn.kernels.declare import Kernel


class GaussNewton(FullBatch):
    """Base of both; see its subclasses.

    Attributes:
        kinds: the kernel's arrays beside the slots, by name: their element types.
    """

    #: arrays of the parameters' size, beside those of a subclass
    common_slots: ClassVar[tuple[str, ...]] = (
        "gradient", "before", "origin", "vector", "product",
    )  # fmt: skip
    kinds: ClassVar[Mapping[str, str]] = {}

    @property
    def slots(self) -> tuple[str, ...]:
        return self.common_slots

    @property
    def state_size(self) -> int:
        return SIZE

    @staticmethod
    def make() -> Kernel:
        """Its kernel, imported where one is needed."""
        raise NotImplementedError

    def check(self, options: Mapping[str, Any]) -> str | None:
        damping = options["damping"]
        return None if damping > 0 else f"damping: expected a positive number, got {damping}"

    def kernels(self) -> tuple[str, str]:
        name = self.make().name
        return name, name

    def working(self, places: np.ndarray, memory: np.ndarray) -> dict[str, np.ndarray]:
        """New arrays of the kernel's own.

        Args:
            places: where the trained parameters are in flat memory.
            memory: that memory.
        """
        raise NotImplementedError

    def operands(self) -> dict[str, float]:
        """The kernel's numbers."""
        return {name: self.options[name] for name in ("tolerance_gradient", "tolerance_change")}


class LevenbergMarquardt(GaussNewton):
    """Levenberg (1944) and Marquardt (1963), for small nets with sums of squares::

        (G + damping D) d = -g               G = J^T L J, the Gauss-Newton matrix
        p' = p + d                           where that lowers the loss
        D = the largest diagonal of G so far, element by element (Moré 1978)

    How damping changes follows Nielsen (1999). Where a step is taken, r is the share of the fall
    that came of that which the quadratic model says, and damping becomes
    damping * max(1 / factor, 1 - (2 r - 1)^3); where a step is refused, damping * 2 is tried, then
    4, 8, ... times as much. With the present diagonal and a fixed factor, as in Marquardt's paper,
    units that saturate are damped least, and fits end on plateaus.

    G is formed explicitly, by a product with each unit vector, so time and memory grow with the
    square of the number of parameters. L is the Hessian of the loss by the outputs: a multiple of I
    for sums of squares, for which the method was made. With other losses that are convex in the
    outputs, such as cross entropy, G is the generalised Gauss-Newton matrix (Schraudolph 2002), and
    positive semi-definite too. A loss without second derivatives (mae) is refused.

    Args:
        damping: at first.
        factor: that it falls by, at most, in an iteration.
        max_evaluations: most evaluations of the loss in one iteration.
        max_parameters: models with more parameters are refused.
        tolerance_gradient, tolerance_change: as for `LBFGS`; 0 means never stop for that reason.

    Raises OptionError for `max_evaluations` or `max_parameters` below 1, and as `Optimizer`.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> net = fnn.nn.Sequential(fnn.nn.Linear(1, 3), fnn.nn.Tanh(), fnn.nn.Linear(3, 1))
    >>> trainer = fnn.Trainer(net, "mse", fnn.optim.LevenbergMarquardt(), dtype="float64")
    >>> history = trainer.fit(x, np.sin(2 * x), epochs=30, verbose=False)
    >>> bool(history["loss"][-1] < 1e-3)
    True
    """

    name: ClassVar[str] = "levenberg_marquardt"
    #: `scaling`: the largest diagonal so far
    common_slots: ClassVar[tuple[str, ...]] = (*GaussNewton.common_slots, "scaling")
    kinds: ClassVar[Mapping[str, str]] = {"matrix": "r", "numbers": "r", "places": "i"}

    def __init__(
        self, damping: float = 1.0, factor: float = 3.0, max_evaluations: int = 20,
        max_parameters: int = 2000, tolerance_gradient: float = 1e-10,
        tolerance_change: float = 0.0,
    ):  # fmt: skip
        check_whole(
            "LevenbergMarquardt",
            1,
            MOST,
            max_evaluations=max_evaluations,
            max_parameters=max_parameters,
        )
        super().__init__(
            lr=1.0, damping=damping, factor=factor, max_evaluations=max_evaluations,
            max_parameters=max_parameters, tolerance_gradient=tolerance_gradient,
            tolerance_change=tolerance_change,
        )  # fmt: skip

    @staticmethod
    def make() -> Kernel:
        from fastnn.kernels.descent.making import make_marquardt_step

        return make_marquardt_step()

    def check(self, options: Mapping[str, Any]) -> str | None:
        factor = options["factor"]
        if not factor > 1:
            return f"factor: expected a number above 1, got {factor}"
        return super().check(options)

    def working(self, places: np.ndarray, memory: np.ndarray) -> dict[str, np.ndarray]:
        n = len(places)
        return {
            "matrix": np.zeros((n, n)),
            "numbers": np.zeros((3, n)),
            "places": places.astype(np.int64),
        }

    def operands(self) -> dict[str, float]:
        return {
            **super().operands(), "fall": self.options["factor"],
            "most_trials": self.options["max_evaluations"],
        }  # fmt: skip


class HessianFree(GaussNewton):
    """Hessian-free optimisation (Martens 2010): truncated Newton on Gauss-Newton products::

        (G + damping I) d = -g               by conjugate gradients, begun at decay times the last d
        p' = p + a d                         a = 1, 0.8, 0.64, ... until the loss falls enough
        damping * 3/2 where the loss falls by less than 1/4 of what the model says, * 2/3 where by
        more than 3/4 (Levenberg's rule)

    Conjugate gradients end when k iterations bring less than 0.0005 k of progress, k = max(10, i /
    10); the step goes back to earlier iterates as long as that lowers the loss.

    Args:
        damping: at first.
        decay: factor of the last direction, from which the next search starts.
        max_iterations: most iterations of conjugate gradients.
        tolerance_gradient, tolerance_change: as for `LBFGS`.

    Raises OptionError for `max_iterations` beyond 1 to 1,000,000, and as `Optimizer`.

    >>> trainer = fnn.Trainer(nn.Linear(4, 1), "mse", optim.HessianFree())
    """

    name: ClassVar[str] = "hessian_free"
    kinds: ClassVar[Mapping[str, str]] = {"values": "r", "iterates": "f"}

    def __init__(
        self, damping: float = 1.0, decay: float = 0.95, max_iterations: int = 250,
        tolerance_gradient: float = 1e-7, tolerance_change: float = 0.0,
    ):  # fmt: skip
        check_whole("HessianFree", 1, 1_000_000, max_iterations=max_iterations)
        super().__init__(
            lr=1.0, damping=damping, decay=decay, max_iterations=max_iterations,
            tolerance_gradient=tolerance_gradient, tolerance_change=tolerance_change,
        )  # fmt: skip

    @staticmethod
    def make() -> Kernel:
        from fastnn.kernels.descent.making import make_hessian_free_step

        return make_hessian_free_step()

    def check(self, options: Mapping[str, Any]) -> str | None:
        decay = options["decay"]
        if not 0 <= decay < 1:
            return f"decay: expected a number in [0, 1), got {decay}"
        return super().check(options)

    @property
    def slots(self) -> tuple[str, ...]:
        return (*self.common_slots, "direction", "iterate", "residual")

    def working(self, places: np.ndarray, memory: np.ndarray) -> dict[str, np.ndarray]:
        from fastnn.kernels.descent.making import kept_iterates

        rounds = int(self.options["max_iterations"])
        kept = kept_iterates(rounds)
        return {
            "values": np.zeros(rounds + 1 + kept),
            "iterates": np.zeros((kept, memory.size), memory.dtype),
        }

    def operands(self) -> dict[str, float]:
        return {
            **super().operands(), "decay": self.options["decay"],
            "rounds": self.options["max_iterations"],
        }  # fmt: skip
