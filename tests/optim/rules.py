"""The rules that `test_rules.py` goes through: how to make each, its oracle, and its peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastnn import optim
from tests import naive_optimizers as naive


@dataclass(frozen=True)
class Rule:
    """An optimiser and what it is compared with.

    Attributes:
        make: ours, of further options.
        step: the oracle's step.
        torch: name and options of PyTorch's, or None.
        optax: the same of optax's.
        rates: rates for the surfaces of `test_rules.py`: valley, saddle and Rosenbrock.
    """

    make: Callable[..., optim.Optimizer]
    step: Callable[..., Any]
    torch: tuple[str, dict[str, Any]] | None = None
    optax: tuple[str, dict[str, Any]] | None = None
    rates: dict[str, float] = field(default_factory=dict)


RULES = {
    "adamax": Rule(optim.Adamax, naive.adamax, ("Adamax", {}), ("adamax", {})),
    "adamax with other betas": Rule(
        partial(optim.Adamax, betas=(0.5, 0.7), eps=1e-3),
        partial(naive.adamax, beta1=0.5, beta2=0.7, eps=1e-3),
        ("Adamax", {"betas": (0.5, 0.7), "eps": 1e-3}),
    ),
    "nadam": Rule(optim.NAdam, naive.nadam, ("NAdam", {})),
    "nadam with fast decay": Rule(
        partial(optim.NAdam, betas=(0.6, 0.8), momentum_decay=0.5),
        partial(naive.nadam, beta1=0.6, beta2=0.8, decay=0.5),
        ("NAdam", {"betas": (0.6, 0.8), "momentum_decay": 0.5}),
    ),
    "nadam without decay": Rule(
        partial(optim.NAdam, momentum_decay=0.0),
        partial(naive.nadam, decay=0.0),
        ("NAdam", {"momentum_decay": 0.0}),
    ),
    "radam": Rule(optim.RAdam, naive.radam, ("RAdam", {}), ("radam", {})),
    "radam with other betas": Rule(
        partial(optim.RAdam, betas=(0.5, 0.8)),
        partial(naive.radam, beta1=0.5, beta2=0.8),
        ("RAdam", {"betas": (0.5, 0.8)}),
    ),
    "lion": Rule(optim.Lion, naive.lion, optax=("lion", {"weight_decay": 0.0})),
    "rprop": Rule(optim.Rprop, naive.rprop),
    "rprop with limits": Rule(
        partial(optim.Rprop, etas=(0.3, 1.5), step_sizes=(0.02, 0.06)),
        partial(naive.rprop, down=0.3, up=1.5, smallest=0.02, largest=0.06),
    ),
    "irprop": Rule(optim.IRprop, naive.irprop, ("Rprop", {})),
    "irprop with limits": Rule(
        partial(optim.IRprop, etas=(0.3, 1.5), step_sizes=(0.02, 0.06)),
        partial(naive.irprop, down=0.3, up=1.5, smallest=0.02, largest=0.06),
        ("Rprop", {"etas": (0.3, 1.5), "step_sizes": (0.02, 0.06)}),
    ),
    "quickprop": Rule(optim.Quickprop, naive.quickprop),
    "delta-bar-delta": Rule(optim.DeltaBarDelta, naive.delta_bar_delta),
    "delta-bar-delta with an average": Rule(
        partial(optim.DeltaBarDelta, theta=0.7, up=2.0, down=0.3, gains=(0.5, 3.0)),
        partial(naive.delta_bar_delta, theta=0.7, up=2.0, down=0.3, smallest=0.5, largest=3.0),
    ),
}
