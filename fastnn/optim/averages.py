"""Averages of parameters over steps, around any optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastnn.errors import check_whole
from fastnn.kernels.simd import fma
from fastnn.optim.common import MOST
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.wrapper import Wrapper

#: a step that is never reached
NEVER = 1e18


def blend(p: Any, new: Any, average: Any, weight: Any, rest: Any) -> tuple[Any, Any]:
    """The average of both; exactly the new parameter where the weight is 1."""
    return new, fma(new, weight, average * rest)


class EMA(Wrapper):
    """An exponential moving average of the parameters beside any optimiser (Polyak & Juditsky 1992
    for the idea; as PyTorch's `AveragedModel` with `get_ema_multi_avg_fn`)::

        p = what the optimiser makes of it
        average = p                                          (first step)
        average = decay * average + (1 - decay) * p          (later)

    Training continues with p. `Trainer.fit` validates the average; ``with trainer.averaged():``
    puts it in place of the parameters to evaluate, predict and save.

    Args:
        optimizer: the optimiser to wrap.
        decay: in [0, 1); usually between 1 - 5 / (number of steps) and 0.9999.

    >>> from fastnn.optim import Adam
    >>> EMA(Adam(lr=0.01), decay=0.99)
    EMA(Adam(lr=0.01, betas=(0.9, 0.999), eps=1e-08), decay=0.99)
    """

    name: ClassVar[str] = "ema"
    kept: ClassVar[str] = "average"

    def __init__(self, optimizer: Optimizer, decay: float = 0.999):
        super().__init__(optimizer, ema_decay=decay)

    def check_own(self, options: Mapping[str, Any]) -> str | None:
        if not 0 <= options["ema_decay"] < 1:
            return f"decay: expected a number in [0, 1), got {options['ema_decay']}"
        return None

    def averages(self, p: Any, slots: Mapping[str, Any]) -> Any:
        return slots["average"]

    @staticmethod
    def weights(t: int, decay: float) -> tuple[float, ...]:
        return (1.0, 0.0) if t == 1 else (1.0 - decay, decay)

    follow = staticmethod(blend)


class SWA(Wrapper):
    """Stochastic weight averaging (Izmailov et al. 2018, "Averaging weights leads to wider optima
    and better generalization", algorithm 1) beside any optimiser::

        p = what the optimiser makes of it
        average = p                                          (until step `start`)
        average = (average * n + p) / (n + 1),  n = n + 1    (then at every `every`-th step)

    With ``every=1`` it is the average of all iterates since `start` (Polyak & Juditsky 1992). The
    paper averages once an epoch, at a constant or cyclic rate: ``every`` steps of an epoch, and a
    schedule such as ``Sequential([CosineAnnealing(n), Constant(0.2)], [n])``. Validation and
    `Trainer.averaged` work as for `EMA`. The running statistics of batch norms are those of
    training, not of the averaged weights.

    Args:
        optimizer: the optimiser to wrap.
        start: the step (from 1) at which averaging begins; None means when a callback says so
            (`callbacks.AverageTrigger`).
        every: steps from one averaged point to the next.

    Raises OptionError for `every` or `start` below 1, and as `Optimizer`.

    >>> from fastnn.optim import SGD
    >>> SWA(SGD(lr=0.1), start=1000, every=100)
    SWA(SGD(lr=0.1), start=1000, every=100)
    """

    name: ClassVar[str] = "swa"
    kept: ClassVar[str] = "average"
    trigger = "swa_start"

    def __init__(self, optimizer: Optimizer, start: int | None = 1, every: int = 1):
        if start is not None:
            check_whole("SWA", 1, MOST, start=start)
        check_whole("SWA", 1, MOST, every=every)
        super().__init__(optimizer, swa_start=NEVER if start is None else start, swa_every=every)

    def averages(self, p: Any, slots: Mapping[str, Any]) -> Any:
        return slots["average"]

    @property
    def unlimited(self) -> tuple[str, ...]:
        return (*super().unlimited, "swa_start", "swa_every")

    def own_values(self, options: Mapping[str, Any]) -> tuple[float, ...]:
        *others, start, every = super().own_values(options)
        return (*others, start if self.begun is None else float(self.begun), every)

    @staticmethod
    def weights(t: int, start: float, every: float) -> tuple[float, ...]:
        after = t - start
        if after <= 0.0:
            return 1.0, 0.0
        if after % every != 0.0:
            return 0.0, 1.0
        count = after / every
        return 1.0 / (count + 1.0), count / (count + 1.0)

    follow = staticmethod(blend)


class Lookahead(Wrapper):
    """Lookahead (Zhang et al. 2019, "Lookahead optimizer: k steps forward, 1 step back",
    algorithm 1) around any optimiser::

        p = what the optimiser makes of it
        slow = slow + alpha * (p - slow),  p = slow          (every `k`-th step)

    `slow` starts as the parameters before the first step. The state of the inner optimiser is kept
    as it is, as in the paper's experiments.

    Args:
        optimizer: the optimiser to wrap.
        k: steps from one look back to the next.
        alpha: how far the slow weights go, in (0, 1].

    Raises OptionError for a `k` below 1, and as `Optimizer`.

    >>> from fastnn.optim import SGD
    >>> Lookahead(SGD(lr=0.1))
    Lookahead(SGD(lr=0.1), k=5, alpha=0.5)
    """

    name: ClassVar[str] = "lookahead"
    kept: ClassVar[str] = "slow"

    def __init__(self, optimizer: Optimizer, k: int = 5, alpha: float = 0.5):
        check_whole("Lookahead", 1, MOST, k=k)
        super().__init__(optimizer, lookahead_k=k, lookahead_alpha=alpha)

    def check_own(self, options: Mapping[str, Any]) -> str | None:
        if not 0 < options["lookahead_alpha"] <= 1:
            return f"alpha: expected a number in (0, 1], got {options['lookahead_alpha']}"
        return None

    @property
    def unlimited(self) -> tuple[str, ...]:
        return (*super().unlimited, "lookahead_k")

    @staticmethod
    def weights(t: int, k: float, alpha: float) -> tuple[float, ...]:
        if t % k != 0.0:
            return 0.0, 1.0, 0.0
        return alpha, 0.0, 1.0

    @staticmethod
    def follow(p: Any, new: Any, slow: Any, weight: Any, ahead: Any, back: Any) -> tuple[Any, Any]:
        slow = fma(new - slow, weight, slow)
        return fma(new, ahead, slow * back), slow
