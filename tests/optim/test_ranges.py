"""Options outside their range, of everything that trains, are refused where they are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnn import callbacks, nn, optim, pretrain
from fastnn.errors import OptionError
from fastnn.optim import schedules

NAN, INF = float("nan"), float("inf")

#: what is made, with the option's name, numbers that are refused, and the range that is named
REFUSED: list[tuple[Callable[..., Any], str, list[Any], str]] = [
    (optim.Adafactor, "decay_rate", [-0.5, 0, 1.5, 2, NAN, "x"], r"\(0, 1\]|a number"),
    (optim.Adafactor, "scale_eps", [-1, 0, INF], "above 0|not negative|a number"),
    (optim.AdaSecant, "lr", [-1, 0, 0.0, NAN, None], "above 0|not negative|a number"),
    (optim.SGD, "momentum", [1.0, 1, -0.1], r"\[0, 1\)"),
    (optim.SGD, "schedule", ["cosin", 0.1], r"CosineAnnealing, .*got ('cosin'|0\.1)"),
    (optim.HessianFree, "damping", [0, -1], "positive number"),
    (optim.RMSprop, "momentum", [1.0, -1], r"\[0, 1\)"),
    (optim.RMSprop, "alpha", [1.0], r"\[0, 1\)"),
    (optim.Adadelta, "rho", [1.0], r"\[0, 1\)"),
    (optim.Adam, "betas", [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9)], r"betas: .*\[0, 1\)"),
    (optim.Muon, "momentum", [1.0], r"\[0, 1\)"),
    (nn.Dropout, "p", [1.0, 1, -1e-9], r"\[0, 1\)"),
    (optim.SGD, "dampening", [-0.5, 1.5, 1000, NAN], r"\[0, 1\]|not negative|a number"),
    (optim.SGD, "clip_global_norm", [0, -1, "x", (1.0,), [1], True, INF, NAN], "positive number"),
    (optim.AdamW, "groups", [0, 0.0, (), [], "", False, {"*": 1}], "a dict of options"),
    (schedules.MultiStep, "milestones", [[-1, 5], [NAN], "x"], "at least 0|number"),
    (lambda **o: schedules.Piecewise(factors=[1, 2], **o), "boundaries", [[-1]], "at least 0"),
    (lambda **o: schedules.Piecewise([3], **o), "factors", [[1, -0.5], [INF, 1]],
     "at least 0|number"),
    (lambda **o: schedules.Sequential([schedules.Constant()] * 2, **o), "milestones", [[-1]],
     "at least 0"),
    (lambda **o: pretrain.RBM(4, 3, **o), "weight_init", [NAN, INF, -INF], "finite"),
    (lambda **o: nn.Linear(4, 3, **o), "bias_init", [NAN, INF], "finite"),
    (lambda **o: pretrain.RBM(4, 3).trainer(**o), "sample_visible", ["x", 1, None],
     "True or False"),
    (lambda **o: pretrain.DenoisingAutoencoder(4, 3, **o), "tied", ["x", 2, None], "True or False"),
    (lambda **o: pretrain.StackedDenoisingAutoencoder([4, 3], **o), "tied", ["x"], "True or False"),
    (nn.Dropout, "classic", ["x", 1, None], "True or False"),
    (callbacks.EarlyStopping, "restore_best_weights", ["x", 1, None], "True or False"),
    (lambda **o: callbacks.ModelCheckpoint("x", **o), "save_best_only", ["val_loss", 1],
     "True or False"),
    (lambda **o: callbacks.ModelCheckpoint("x", **o), "save_freq", [True, 0, 1.5, "step"],
     "steps above 0"),
    (lambda **o: callbacks.CSVLogger("x", **o), "append", ["a", 1], "True or False"),
    (callbacks.ReduceLROnPlateau, "min_lr", [-1, NAN, "x"], "min_lr >= 0|number"),
    (optim.SGD, "accumulate", [0, 1.5, 10**30], ">= 1|at most 2,147,483,647"),
    (optim.ConjugateGradient, "restart", [-1, 10**30], ">= 0|at most 2,147,483,647"),
    (optim.LBFGS, "history_size", [0, 10**6], ">= 1|at most 1,000"),
    (optim.LBFGS, "max_evaluations", [0, 2**31], ">= 1|at most 2,147,483,647"),
    (optim.LevenbergMarquardt, "max_evaluations", [0, 10**30], ">= 1|at most 2,147,483,647"),
    (optim.HessianFree, "max_iterations", [0, 10**7], ">= 1|at most 1,000,000"),
    (lambda **o: optim.Lookahead(optim.SGD(), **o), "k", [0, 2**31], ">= 1|at most 2,147,483,647"),
    (callbacks.LearningRateScheduler, "schedule", [0.1, None, "cosine"], "a function of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "name", "value", "allowed"),
    [(m, n, v, a) for m, n, values, a in REFUSED for v in values],
)
def test_refused(make: Callable[..., Any], name: str, value: Any, allowed: str) -> None:
    with pytest.raises(OptionError, match=allowed):
        make(**{name: value})


def test_edges_of_the_ranges_are_taken() -> None:
    optim.Adafactor(decay_rate=1.0, scale_eps=1e-8)
    optim.SGD(momentum=0.5, dampening=1.0, clip_global_norm=np.float32(1), groups={})
    optim.AdaSecant(lr=1e-6)
    schedules.MultiStep([0, 5])
    schedules.Piecewise([0], [0, 1])
    nn.Dropout(classic=np.True_)  # type: ignore[arg-type]
    callbacks.ReduceLROnPlateau(min_lr=0)


FULL_BATCH = ("LBFGS", "ConjugateGradient", "LevenbergMarquardt", "HessianFree")  # have no groups

#: every option that is a number, of every optimiser that is made without another
NUMBERS = [
    (name, option)
    for name in optim.__all__
    if isinstance(getattr(optim, name), type)
    if name not in ("Optimizer", "EMA", "SWA", "Lookahead")
    for option, value in getattr(optim, name)().options.items()
    if isinstance(value, (int, float)) and not isinstance(value, bool)
    if name not in FULL_BATCH or option in inspect.signature(getattr(optim, name)).parameters
]


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_numbers_of_every_optimiser(name: str, option: str) -> None:
    for value in (-1, -0.5, NAN, INF, -INF, "x", (), [1], 1j, True):
        given = {option: value}
        with pytest.raises(OptionError, match=rf"{option}|betas|: weight_decay"):
            getattr(optim, name)(**given if name in FULL_BATCH else {"groups": {"*": given}})
