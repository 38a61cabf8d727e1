"""The rules that `test_rules.py` goes through: how to make each, its oracle, and its peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastnn import optim
from tests import naive as oracle
from tests import naive_optimizers as naive


@dataclass(frozen=True)
class Rule:
    """An optimiser and what it is compared with.

    Attributes:
        make: ours, of further options.
        step: the oracle's step.
        torch: name and options of PyTorch's, or None.
        optax: the same of optax's.
        common: whether it takes L2 and schedules as the base class has them.
    """

    make: Callable[..., optim.Optimizer]
    step: Callable[..., Any]
    torch: tuple[str, dict[str, Any]] | None = None
    optax: tuple[str, dict[str, Any]] | None = None
    common: bool = True


def adam(p: Any, g: Any, s: Any, lr: float, t: int) -> Any:
    return oracle.adam(p, g, s, lr, t)


def momentum(p: Any, g: Any, s: Any, lr: float, t: int) -> Any:
    return oracle.sgd(p, g, s, lr, momentum=0.9)


def rmsprop(p: Any, g: Any, s: Any, lr: float, t: int) -> Any:
    return oracle.rmsprop(p, g, s, lr, momentum=0.5, centered=True)


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
    "asgd": Rule(
        partial(optim.ASGD, lambd=0.01, t0=3),
        partial(naive.asgd, lambd=0.01, t0=3),
        ("ASGD", {"lambd": 0.01, "t0": 3}),
    ),
    "schedule-free adamw": Rule(optim.ScheduleFreeAdamW, naive.schedule_free_adamw, common=False),
    "schedule-free adamw with warm-up": Rule(
        partial(optim.ScheduleFreeAdamW, betas=(0.7, 0.8), warmup=4, weight_decay=0.3),
        partial(naive.schedule_free_adamw, beta1=0.7, beta2=0.8, warmup=4, decay=0.3),
        common=False,
    ),
    "ema": Rule(
        lambda **m: optim.EMA(optim.Adam(**m), decay=0.8),
        naive.averaged(adam, lambda t: 1.0 if t == 1 else 0.2),
    ),
    "swa": Rule(
        lambda **m: optim.SWA(optim.SGD(momentum=0.9, **m), start=3, every=2),
        naive.averaged(momentum, naive.swa_weight(3, 2)),
    ),
    "lookahead": Rule(
        lambda **m: optim.Lookahead(
            optim.RMSprop(centered=True, momentum=0.5, **m), k=3, alpha=0.4
        ),
        naive.lookahead(rmsprop, 3, 0.4),
    ),
    "ema of lookahead": Rule(
        lambda **m: optim.EMA(optim.Lookahead(optim.Adam(**m), k=2), decay=0.5),
        naive.averaged(naive.lookahead(adam, 2), lambda t: 1.0 if t == 1 else 0.5),
    ),
    "lamb": Rule(
        partial(optim.LAMB, weight_decay=0.1),
        partial(naive.lamb, decay=0.1),
        optax=("lamb", {"weight_decay": 0.1}),
        common=False,
    ),
    "adafactor": Rule(
        optim.Adafactor, naive.adafactor, ("Adafactor", {"eps": (2.0**-23, 1e-3)}), common=False
    ),
    "adafactor with other options": Rule(
        partial(optim.Adafactor, decay_rate=0.5, scale_eps=0.5, threshold=0.3),
        partial(naive.adafactor, decay_rate=0.5, scale_eps=0.5, threshold=0.3),
        common=False,
    ),
    "adasecant": Rule(optim.AdaSecant, naive.adasecant, common=False),
    "adasecant with other options": Rule(
        partial(optim.AdaSecant, beta=0.5, gamma_clip=0.3, eps=1e-3),
        partial(naive.adasecant, decay=0.5, clip=0.3, eps=1e-3),
        common=False,
    ),
    "muon": Rule(optim.Muon, naive.muon, common=False),
    "muon as it was": Rule(
        partial(
            optim.Muon, momentum=0.8, nesterov=False, steps=3, match_rms=False, weight_decay=0.0
        ),
        partial(naive.muon, momentum=0.8, nesterov=False, steps=3, match_rms=False, decay=0.0),
        common=False,
    ),
    "muon without matrices": Rule(
        partial(optim.Muon, groups={"*": {"orthogonal": False}}),
        partial(naive.muon, orthogonal=False),
        common=False,
    ),
}
