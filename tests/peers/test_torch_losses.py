"""Losses against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops, optim
from tests.peers.test_torch import BATCH, CLASSES, MODELS, STEPS, F, compare, data, torch

pytestmark = pytest.mark.peers


def real_targets(kind: str) -> np.ndarray:
    rng = np.random.default_rng(9)
    y = rng.normal(size=(STEPS * BATCH, CLASSES)) * 2
    if kind == "binary":
        y = (y > 0).astype(float)
    if kind in ("probabilities", "log probabilities"):
        y = np.exp(y) / np.exp(y).sum(-1, keepdims=True)
        y = np.log(y) if kind.startswith("log") else y
    return y.astype(np.float32)


WEIGHT = [0.5, 2.0, 1.0, 0.1]
LOSSES: dict[str, tuple[str, Callable[[], Any], Callable[[Any, Any], Any]]] = {
    "cross entropy": ("classes", nn.CrossEntropyLoss, F.cross_entropy),
    "cross entropy, sum": (
        "classes",
        lambda: nn.CrossEntropyLoss(reduction="sum"),
        lambda o, t: F.cross_entropy(o, t, reduction="sum"),
    ),
    "cross entropy, weights": (
        "classes",
        lambda: nn.CrossEntropyLoss(WEIGHT),
        lambda o, t: F.cross_entropy(o, t, torch.tensor(WEIGHT)),
    ),
    "cross entropy, smoothing": (
        "classes",
        lambda: nn.CrossEntropyLoss(label_smoothing=0.2),
        lambda o, t: F.cross_entropy(o, t, label_smoothing=0.2),
    ),
    "cross entropy, ignored": (
        "classes",
        lambda: nn.CrossEntropyLoss(ignore_index=2),
        lambda o, t: F.cross_entropy(o, t, ignore_index=2),
    ),
    "cross entropy, all options": (
        "classes",
        lambda: nn.CrossEntropyLoss(WEIGHT, ignore_index=1, label_smoothing=0.1),
        lambda o, t: F.cross_entropy(
            o, t, torch.tensor(WEIGHT), ignore_index=1, label_smoothing=0.1
        ),
    ),
    "cross entropy of probabilities": ("probabilities", nn.CrossEntropyLoss, F.cross_entropy),
    "cross entropy of probabilities, options": (
        "probabilities",
        lambda: nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1),
        lambda o, t: F.cross_entropy(o, t, torch.tensor(WEIGHT), label_smoothing=0.1),
    ),
    "nll": (
        "classes",
        lambda: lambda o, t: nn.NLLLoss(WEIGHT, ignore_index=3)(ops.log_softmax(o), t),
        lambda o, t: F.nll_loss(o.log_softmax(-1), t, torch.tensor(WEIGHT), ignore_index=3),
    ),
    "mse": ("real", nn.MSELoss, F.mse_loss),
    "mse, sum": (
        "real",
        lambda: nn.MSELoss(reduction="sum"),
        lambda o, t: F.mse_loss(o, t, reduction="sum"),
    ),
    "mae": ("real", nn.L1Loss, F.l1_loss),
    "huber": ("real", lambda: nn.HuberLoss(0.6), lambda o, t: F.huber_loss(o, t, delta=0.6)),
    "smooth l1": (
        "real",
        lambda: nn.SmoothL1Loss(0.6),
        lambda o, t: F.smooth_l1_loss(o, t, beta=0.6),
    ),
    "smooth l1, beta 0": (
        "real",
        lambda: nn.SmoothL1Loss(0.0, reduction="sum"),
        lambda o, t: F.smooth_l1_loss(o, t, beta=0.0, reduction="sum"),
    ),
    "binary of probabilities": (
        "binary",
        lambda: lambda o, t: nn.BCELoss()(ops.sigmoid(o), t),
        lambda o, t: F.binary_cross_entropy(o.sigmoid(), t),
    ),
    "elements": (
        "binary",
        lambda: (
            lambda o, t: ops.mean(
                ops.square(nn.BCEWithLogitsLoss(WEIGHT, reduction="none")(o, t))
                + ops.square(nn.HuberLoss(0.6, reduction="none")(o, t))
            )
        ),
        lambda o, t: (
            F.binary_cross_entropy_with_logits(
                o, t, pos_weight=torch.tensor(WEIGHT), reduction="none"
            )
            ** 2
            + F.huber_loss(o, t, delta=0.6, reduction="none") ** 2
        ).mean(),
    ),
    "rows": (
        "classes",
        lambda: (
            lambda o, t: ops.mean(
                ops.square(nn.CrossEntropyLoss(WEIGHT, ignore_index=1, reduction="none")(o, t))
            )
        ),
        lambda o, t: (
            F.cross_entropy(o, t, torch.tensor(WEIGHT), ignore_index=1, reduction="none") ** 2
        ).mean(),
    ),
    "binary": ("binary", nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits),
    "binary, pos_weight": (
        "binary",
        lambda: nn.BCEWithLogitsLoss(WEIGHT),
        lambda o, t: F.binary_cross_entropy_with_logits(o, t, pos_weight=torch.tensor(WEIGHT)),
    ),
    "kl": (
        "probabilities",
        lambda: lambda o, t: nn.KLDivLoss()(ops.log_softmax(o), t),
        lambda o, t: F.kl_div(o.log_softmax(-1), t, reduction="batchmean"),
    ),
    "kl, mean": (
        "probabilities",
        lambda: lambda o, t: nn.KLDivLoss("mean")(ops.log_softmax(o), t),
        lambda o, t: F.kl_div(o.log_softmax(-1), t, reduction="mean"),
    ),
    "kl, log target": (
        "log probabilities",
        lambda: lambda o, t: nn.KLDivLoss(log_target=True)(ops.log_softmax(o), t),
        lambda o, t: F.kl_div(o.log_softmax(-1), t, reduction="batchmean", log_target=True),
    ),
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    kind, ours, theirs = LOSSES[name]
    x, classes = data("tanh")
    y = classes if kind == "classes" else real_targets(kind)
    compare(
        *MODELS["tanh"](), ours(), theirs, optim.SGD(lr=0.01, momentum=0.5),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5), x, y, room=2.0,
    )  # fmt: skip


@pytest.mark.parametrize(("dtype", "room"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ctc(reduction: str, dtype: str, room: float) -> None:
    """Losses and gradients, of sequences with few labels, many, none, and doubled ones. PyTorch
    computes in float64: in float32 its logarithms of probabilities have lost too many digits."""
    rng = np.random.default_rng(4)
    x = 3 * rng.standard_normal((5, 60, 7)).astype(dtype)
    labels = rng.integers(0, 6, (5, 20))
    labels[1, :19] = 3
    lengths, counts = np.array([60, 60, 31, 1, 50]), np.array([20, 19, 12, 1, 0])
    dy = rng.standard_normal(5 if reduction == "none" else 1).astype(dtype)

    class Graded(nn.Module):
        def forward(self, x: Any, labels: Any, lengths: Any, counts: Any) -> Any:
            given = nn.CTCLoss(blank=6, reduction=reduction)((x, lengths), (labels, counts))
            whole = ops.total(ops.multiply(given, dy) if given.ndim else given * float(dy[0]))
            return given, ops.gradient(whole, x)

    model = Graded()
    model.to(dtype)
    loss, dx = model.predict(x, labels, lengths, counts, batch_size=5)
    given = torch.tensor(x.astype(np.float64), requires_grad=True)
    theirs = F.ctc_loss(
        given.log_softmax(-1).transpose(0, 1), torch.tensor(labels), torch.tensor(lengths),
        torch.tensor(counts), blank=6, reduction=reduction,
    )  # fmt: skip
    theirs.backward(torch.tensor((dy if reduction == "none" else dy[0]).astype(np.float64)))
    np.testing.assert_allclose(loss, theirs.detach().numpy(), rtol=room)
    np.testing.assert_allclose(dx, given.grad.numpy(), atol=room)
