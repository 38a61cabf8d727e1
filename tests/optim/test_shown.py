"""An optimiser is shown as the call that makes one like it."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

from fastnn import optim
from fastnn.optim import Optimizer

CALLS = [
    "Adam(lr=0.01, betas=(0.8, 0.99), eps=1e-08)",
    "AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)",
    "SGD(lr=0.1, momentum=0.9, nesterov=True, clip_norm=1.0)",
    "Rprop(lr=0.01, etas=(0.4, 1.3), step_sizes=(1e-06, 50.0))",
    "EMA(Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08), decay=0.99)",
    "SGD(lr=0.1, groups={'*.bias': {'lr': 0.2}})",
]


EVERY = {name: getattr(optim, name) for name in optim.__all__}


@pytest.mark.parametrize("text", CALLS)
def test_calls(text: str) -> None:
    made = eval(text, EVERY)
    assert repr(made) == text
    for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert repr(other) == text


def test_numbers_of_numpy_are_shown_as_numbers() -> None:
    assert repr(optim.SGD(lr=np.float64(0.5))) == "SGD(lr=0.5)"


def own() -> list[str]:
    kinds = EVERY.values()
    return [
        k.__name__
        for k in kinds
        if inspect.isclass(k) and issubclass(k, Optimizer) and k is not Optimizer
    ]


@pytest.mark.parametrize("name", own())
def test_a_shown_optimizer_makes_an_equal_one(name: str) -> None:
    kind = getattr(optim, name)
    inner = "optimizer" in inspect.signature(kind.__init__).parameters
    made = kind(optim.SGD(lr=0.3)) if inner else kind()
    again = eval(repr(made), EVERY)
    assert type(again) is kind
    assert again.options == made.options


def test_an_optimizer_of_ones_own() -> None:
    class Plain(Optimizer):
        name, scalars = "plain", staticmethod(lambda t, lr: ())

        def __init__(self, rate: float):
            super().__init__(lr=rate)

    assert repr(Plain(0.5)) == "Plain(rate=0.5)"
