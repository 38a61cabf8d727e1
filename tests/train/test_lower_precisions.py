"""200 steps at lower precisions beside float32's, and beside PyTorch's autocast from the same
weights on the same batches."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim

STEPS, BATCH = 200, 32
#: how far the mean loss of the last 50 steps may be from that of float32, relative
NEAR = {"high": 0.002, "medium": 0.02, "bf16": 0.03, "fp16": 0.01}


class Reader(nn.Module):
    def __init__(self, units: int = 24) -> None:
        super().__init__()
        self.layer, self.out = nn.LSTM(6, units), nn.Linear(units, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.layer(x)[0][:, -1])


def mlp(first: int = 64, second: int = 32) -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, first), nn.ReLU(), nn.Linear(first, second), nn.Tanh(), nn.Linear(second, 3)
    )


def wide_mlp() -> nn.Module:
    """Large enough for the products of a tile unit, or of AVX-512-BF16."""
    return mlp(256, 128)


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (STEPS * BATCH, 20) if "mlp" in name else (STEPS * BATCH, 9, 6)
    x = rng.normal(size=shape).astype(np.float32)
    sums = x[:, :3] if "mlp" in name else x[..., :3].sum(axis=1)
    return x, sums.argmax(axis=1)


MODELS = {
    "mlp": mlp, "wide mlp": wide_mlp, "lstm": Reader, "wide lstm": lambda: Reader(64),
}  # fmt: skip


def losses(name: str, **options: Any) -> np.ndarray:
    x, y = data(name)
    step = fnn.compile(
        MODELS[name](), "cross_entropy", optim.Adam(lr=0.003), device="cpu", seed=1, **options
    )
    found = [step(x[k : k + BATCH], y[k : k + BATCH]) for k in range(0, len(x), BATCH)]
    return np.array(found)


def torch_losses(name: str, kind: str) -> np.ndarray:
    """The same training in PyTorch, its products in this type by autocast."""
    import torch

    own, layers = MODELS[name](), torch.nn
    own.store("float32", 1)
    given = {n: torch.from_numpy(np.array(v)) for n, v in own.state_dict().items()}
    peer = layers.Sequential(
        layers.Linear(*given["0.weight"].T.shape), layers.ReLU(),
        layers.Linear(*given["2.weight"].T.shape), layers.Tanh(),
        layers.Linear(*given["4.weight"].T.shape),
    )  # fmt: skip
    peer.load_state_dict(given)
    rule = torch.optim.Adam(peer.parameters(), lr=0.003)
    x, y = (torch.from_numpy(a) for a in data(name))
    lower = kind != "float32"
    found = []
    for k in range(0, len(x), BATCH):
        rule.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if lower else contextlib.nullcontext():
            out = peer(x[k : k + BATCH])
        loss = torch.nn.functional.cross_entropy(out.float(), y[k : k + BATCH])
        loss.backward()
        rule.step()
        found.append(float(loss.detach()))
    return np.array(found)


@pytest.mark.parametrize("name", MODELS)
def test_lower_precisions_train_like_float32(name: str) -> None:
    highest = losses(name)
    assert highest[-50:].mean() < 0.75 * highest[:10].mean()  # it learns
    for precision, near in NEAR.items():
        lower = losses(name, precision=precision)
        assert abs(lower[-50:].mean() / highest[-50:].mean() - 1) < near, precision


@pytest.mark.peers
@pytest.mark.parametrize("name", ["mlp", "wide mlp"])
def test_pytorch_autocast_is_as_far(name: str) -> None:
    """From the same weights: float32 alike, and bfloat16 as near to it as PyTorch's autocast."""
    highest, theirs = losses(name), torch_losses(name, "float32")
    np.testing.assert_allclose(highest[:50], theirs[:50], rtol=1e-3)
    end = highest[-50:].mean()
    for lower in (losses(name, precision="bf16"), torch_losses(name, "bf16")):
        assert abs(lower[-50:].mean() / end - 1) < NEAR["bf16"]
