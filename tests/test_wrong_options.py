"""Every option of every public class: a value of a wrong kind is refused by fastnn's errors."""

from __future__ import annotations

import contextlib
import inspect
import math
from typing import Any

import numpy as np
import pytest

from fastnn import callbacks, nn, optim, pretrain
from fastnn.errors import FastnnError
from fastnn.optim import schedules

#: what the required options are; 3 where nothing is said
REQUIRED: dict[str, Any] = {
    "approximate": "none", "monitor": "loss", "filepath": "run", "filename": "log.csv",
    "schedules": [schedules.Constant()], "milestones": [], "boundaries": [2],
    "factors": [1.0, 0.5], "schedule": lambda epoch, rate: rate, "duration": 10, "shape": (3,),
    "optimizer": optim.SGD(), "block": nn.ReLU(), "sizes": [4, 3, 2],
    "net": pretrain.DeepBeliefNet([4, 3, 2]), "layer": nn.Linear(4, 3),
    "encoder": nn.ReLU(),
}  # fmt: skip
#: of options that may be left out, but not all of them, and those that 3 does not fit
ONE_OF: dict[str, dict[str, Any]] = {
    "Upsample": {"scale_factor": 2}, "RotaryPositions": {"size": 4},
    "CTCDecoder": {"symbols": ["", "a", "b"], "blank": 0},
    "AdaptiveLogSoftmaxWithLoss": {"in_features": 16, "n_classes": 30, "cutoffs": [5]},
    "TransducerDecoder": {
        "model": nn.Transducer(nn.ReLU(), 3, 3), "symbols": ["", "a", "b"], "labels": 3,
    },
    "TransformerEncoder": {"layer": nn.TransformerEncoderLayer(4, 2)},
    "TransformerDecoder": {"layer": nn.TransformerDecoderLayer(4, 2)},
    "CRFLoss": {"crf": nn.CRF(3)},
}  # fmt: skip
WRONG = [
    None, "abc", -1, 1.5, math.nan, math.inf, [], {}, (1, "b"), object(), True, {"a": 1}, [None],
]  # fmt: skip
PLACES = {
    "nn": (
        nn, [name for name in nn.__all__ if name not in ("Module", "Loss", "Parameter", "Place")]
    ),
    "optim": (optim, [name for name in optim.__all__ if name not in ("Optimizer", "schedules")]),
    "pretrain": (pretrain, [name for name in pretrain.__all__ if name != "Partition"]),
    "schedules": (schedules, [n for n in schedules.__all__ if n != "Schedule"]),
    "callbacks": (
        callbacks,
        ["AnnealDropout", "CSVLogger", "EarlyStopping", "LearningRateScheduler", "ModelCheckpoint",
         "ReduceLROnPlateau"],
    ),
}  # fmt: skip


def options(made: Any) -> dict[str, Any]:
    own = inspect.signature(made).parameters.items()
    return {
        name: REQUIRED.get(name, 3)
        for name, parameter in own
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


@pytest.mark.parametrize(
    ("place", "name"), [(p, n) for p, (_, names) in PLACES.items() for n in names]
)
def test_wrong_options(place: str, name: str) -> None:
    made = getattr(PLACES[place][0], name)
    if not inspect.isclass(made):
        return
    right = options(made) | ONE_OF.get(name, {})
    made(**right)
    foreign = []
    for option, parameter in inspect.signature(made).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        for wrong in WRONG:
            try:
                made(**{**right, option: wrong})
            except FastnnError:
                pass
            except Exception as error:
                foreign.append((option, wrong, error))
    assert foreign == []


@pytest.mark.parametrize(
    ("place", "name"), [(p, n) for p, (_, names) in PLACES.items() for n in names]
)
def test_flags_are_true_or_false(place: str, name: str) -> None:
    """What is no flag would count as one: ``bias="no"`` as True."""
    made = getattr(PLACES[place][0], name)
    if not inspect.isclass(made):
        return
    right = options(made) | ONE_OF.get(name, {})
    taken = []
    for option, parameter in inspect.signature(made).parameters.items():
        if not isinstance(parameter.default, bool):
            continue
        made(**{**right, option: np.bool_(parameter.default)})
        for wrong in ("no", 1, 0.0, None, [True]):
            with contextlib.suppress(FastnnError):
                made(**{**right, option: wrong})
                taken.append((option, wrong))
    assert taken == []


@pytest.mark.parametrize(
    ("made", "option", "wrong"),
    [
        (nn.BatchNorm, "momentum", None),
        (nn.BatchNorm, "eps", -1e-5),
        (nn.Upsample, "align_corners", "no"),
        (nn.LayerNorm, "eps", -1),
        (nn.GroupNorm, "eps", -1.0),
        (nn.Dropout, "p", "0.5"),
        (nn.ELU, "alpha", math.nan),
        (nn.LSTM, "forget_bias", "one"),
        (nn.LSTM, "hidden_size", 4.0),
        (nn.RNN, "identity_init", "yes"),
        (nn.PReLU, "num_parameters", 1.5),
        (optim.Adam, "betas", 0.9),
        (optim.AdamW, "groups", ["*.bias"]),
        (schedules.MultiStep, "milestones", 5),
        (schedules.Constant, "value", "high"),
        (callbacks.EarlyStopping, "patience", 2.5),
        (callbacks.EarlyStopping, "baseline", "0.9"),
        (callbacks.ReduceLROnPlateau, "min_lr", None),
        (callbacks.ModelCheckpoint, "monitor", 3),
    ],
)
def test_refused_by_name(made: Any, option: str, wrong: Any) -> None:
    with pytest.raises(FastnnError, match=option):
        made(**{**options(made), option: wrong})


def test_numbers_of_numpy_are_numbers() -> None:
    nn.Dropout(np.float32(0.5))
    nn.LSTM(np.int64(4), np.int32(5), proj_size=np.int64(2))
    nn.BatchNorm(np.int64(3), eps=np.float64(1e-3), momentum=np.float32(0.5))
    optim.Adam(lr=np.float32(0.1), betas=[np.float64(0.8), np.float64(0.9)])
    schedules.MultiStep(np.array([2, 4]), gamma=np.float32(0.5))
    callbacks.EarlyStopping(patience=np.int64(3), min_delta=np.float32(0.1))
