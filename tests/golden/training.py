"""Cases of losses, metrics, optimisers and steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import metrics, nn, ops, optim
from tests.golden.cases import Calls, case, compiled, fit, ids, numbers
from tests.train.models import OPTIMIZERS


@case
def losses() -> None:
    classes = np.array([1.0, 2.0, 0.5, 1.0])
    for loss in (
        nn.CrossEntropyLoss(classes, ignore_index=3), nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(reduction="sum"), nn.NLLLoss(),
    ):  # fmt: skip
        fit(nn.Linear(3, 4), numbers(8, 3), ids(8), loss)
    for loss in (
        nn.CrossEntropyLoss(classes), nn.MSELoss(), nn.L1Loss("sum"), nn.HuberLoss(0.5),
        nn.SmoothL1Loss(0.5), nn.BCELoss(), nn.BCEWithLogitsLoss(), nn.BCEWithLogitsLoss(classes),
        nn.KLDivLoss(), nn.KLDivLoss("sum", log_target=True),
    ):  # fmt: skip
        fit(nn.Linear(3, 4), numbers(8, 3), numbers(8, 4), loss)


@case
def weighted() -> None:
    """Two outputs with a loss each, factors, sample weights."""
    layer = Calls(lambda m, x: {"a": m.a(x), "b": m.b(x)}, a=nn.Linear(3, 4), b=nn.Linear(3, 2))
    y = {"a": ids(8), "b": numbers(8, 2)}
    fit(
        layer, numbers(8, 3), y, {"a": "cross_entropy", "b": "huber"}, loss_weights={"b": 0.5},
        metrics={"a": ["accuracy"]}, sample_weight=np.ones(8),
    ).evaluate(numbers(8, 3), y)  # fmt: skip


@case
def own_losses() -> None:
    """A mean, a sum, and one that does not add up over batches."""
    for loss in (
        lambda out, target: ops.mean((out - target) ** 2),
        lambda out, target: ops.sum(ops.absolute(out - target)),
        lambda out, target: ops.sqrt(ops.mean((out - target) ** 2)),
    ):
        fit(nn.Linear(3, 2), numbers(8, 3), numbers(8, 2), loss).evaluate(
            numbers(8, 3), numbers(8, 2), batch_size=4
        )


@case
def reported() -> None:
    """Metrics."""
    fit(
        nn.Linear(3, 4), numbers(8, 3), numbers(8, 4), "bce_with_logits",
        metrics=["accuracy", metrics.binary_accuracy(0.2), "mse", "mae",
                 lambda out, target: ops.mean(out * target, axis=-1)],
    )  # fmt: skip


@case
def optimizers() -> None:
    """Every optimiser in each of its forms."""
    for make in (
        *OPTIMIZERS.values(),
        lambda: optim.Adam(amsgrad=True),
        lambda: optim.Adam(weight_decay=1e4),  # every step doubtful
        lambda: optim.SGD(lr=0.1, momentum=0.9, maximize=True, decoupled_weight_decay=0.1),
    ):
        fit(nn.Linear(3, 2), numbers(8, 3), numbers(8, 2), optimizer=make())


@case
def clipping() -> None:
    for options in (
        {"clip_value": 0.01}, {"clip_norm": 0.05}, {"clip_global_norm": 0.05, "clip_value": 0.01},
        {"groups": {"*.bias": {"weight_decay": 0.3, "lr": 0.2}, "0.*": {"clip_norm": 0.1}}},
    ):  # fmt: skip
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        fit(model, numbers(8, 3), numbers(8, 2), optimizer=optim.Adam(lr=0.1, **options))


@case
def unguarded() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Linear(4, 2))
    fit(model, numbers(8, 3), numbers(8, 2), stop_on_nonfinite=False)


@case
def gradients_kept() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    fit(model, numbers(8, 3), numbers(8, 2), keep_gradients=True)


@case
def frozen() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model.freeze("0.*")
    fit(model, numbers(8, 3), numbers(8, 2))


@case
def autoencoder() -> None:
    model = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6))
    fit(model, (numbers(8, 6) > 0).astype(np.uint8), None, "bce_with_logits")


# ---------------------------------------------------------------- steps


@case
def step() -> None:
    """A step, its loss, its gradients; ids are checked by a program of their own."""
    step = compiled(nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 4)), "cross_entropy")
    step(ids(8), ids(8))
    step(ids(8), ids(8), np.ones(8))
    step.evaluate(ids(8), ids(8))
    step.gradients(ids(8), ids(8))


@case
def players() -> None:
    """Two steps that train parts of one model."""

    class Game(nn.Module):
        def __init__(self) -> None:
            self.makes = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
            self.judges = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(), nn.Linear(8, 1))

        def forward(self, noise: Any, real: Any) -> Any:
            return self.judges(self.makes(noise)), self.judges(real)

    model, data = Game(), (numbers(8, 2), numbers(8, 3))
    first = compiled(model, lambda out, _: ops.mean(ops.softplus(-out[0])), parameters="makes.*")
    second = compiled(
        model, lambda out, _: ops.mean(ops.softplus(out[0]) + ops.softplus(-out[1])),
        parameters="judges.*", keep_gradients=True,
    )  # fmt: skip
    first(data)
    second(data)
