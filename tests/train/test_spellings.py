"""What Keras and PyTorch call otherwise: the error says the name that it has here."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import OptionError, UnknownArgumentError
from fastnn.spellings import ARGUMENTS, ATTRIBUTES, OPTIONS

X, Y = np.zeros((4, 3), np.float32), np.zeros(4, np.int64)
MODEL = nn.Sequential(nn.Linear(3, 2))
TRAINER = fnn.Trainer(MODEL, "cross_entropy")

CALLS: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (TRAINER.fit, {"validation_data": (X, Y)}, r"Trainer.fit: unknown argument 'validation_data'; "
     r"write validation=\(x, y\)"),
    (TRAINER.fit, {"epoch": 3}, "it is called epochs"),
    (TRAINER.fit, {"learning_rate": 0.1}, r"it belongs to the optimizer: .*Adam\(lr=0.001\)"),
    (TRAINER.fit, {"workers": 2}, "pass it to Trainer, or fnn.compile"),
    (TRAINER.fit, {"shufle": True}, "did you mean 'shuffle'?"),
    (TRAINER.fit, {"quux": True}, r"expected some of \['batch_size', .*'y'\]"),
    (TRAINER.evaluate, {"verbose": 0}, "leave it out: nothing is shown"),
    (fnn.Trainer, {"model": MODEL, "criterion": "mse"}, "Trainer: .*; it is called loss"),
    (fnn.Trainer, {"model": MODEL, "loss": "mse", "epochs": 3}, "pass it to fit"),
    (fnn.compile, {"model": MODEL, "loss": "mse", "metrics": []}, "compile: .* use Trainer"),
    (optim.Adam, {"learning_rate": 0.1}, "unknown option 'learning_rate'; expected 'lr', as it is"),
    (optim.SGD, {"clipnorm": 1.0}, "expected 'clip_norm', as"),
    (optim.SGD, {"beta1": 0.9}, "expected some of"),  # it has none
]  # fmt: skip


@pytest.mark.parametrize(("function", "named", "remedy"), CALLS)
def test_arguments(function: Callable[..., Any], named: dict[str, Any], remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy) as caught:
        function(*((X, Y) if function in (TRAINER.fit, TRAINER.evaluate) else ()), **named)
    assert isinstance(caught.value, UnknownArgumentError) or function.__module__.startswith(
        "fastnn.optim"
    )


def test_attributes() -> None:
    with pytest.raises(AttributeError, match=r"'Sequential' object .* 'fit'; fnn.Trainer\(model"):
        MODEL.fit  # noqa: B018
    with pytest.raises(AttributeError, match=r"'Trainer' object .* 'validate'; call evaluate"):
        TRAINER.validate  # noqa: B018
    with pytest.raises(AttributeError, match=r"'Sequential' object has no attribute 'quux'$"):
        MODEL.quux  # noqa: B018
    assert not hasattr(MODEL, "eval")
    assert pickle.loads(pickle.dumps(MODEL)).parameter_count == 8
    assert copy.deepcopy(MODEL).parameter_count == 8


def test_a_property_that_fails_says_why() -> None:
    class Broken(nn.Module):
        @property
        def width(self) -> int:
            return self.nowhere

    with pytest.raises(AttributeError, match="'Broken' object has no attribute 'nowhere'"):
        Broken().width  # noqa: B018


def test_a_property_that_fails_once_is_not_called_missing() -> None:
    class Late(nn.Module):
        @property
        def width(self) -> int:
            there = hasattr(self, "found")
            self.found = 3
            return self.found if there else self.nowhere

    with pytest.raises(AttributeError, match=r"property 'width' of 'Late' .* each time, or raise"):
        Late().width  # noqa: B018


def test_names_that_exist_are_not_in_the_tables() -> None:
    """What is there needs no remedy, and remedies name what is there."""
    own = {label: set(inspect.signature(f).parameters) for label, f in (
        ("Trainer.evaluate", fnn.Trainer.evaluate), ("compile", fnn.compile))}  # fmt: skip
    for label, names in own.items():
        assert not names & ARGUMENTS[label].keys()
    assert [n for n in ATTRIBUTES["Module"] if hasattr(MODEL, n)] == []
    assert [n for n in ATTRIBUTES["Trainer"] if hasattr(TRAINER, n)] == []
    everywhere = {*optim.Adam().options, *optim.SGD().options, "accumulate", "groups", "schedule",
                  "betas", "clip_global_norm"}  # fmt: skip
    assert set(OPTIONS.values()) <= everywhere
