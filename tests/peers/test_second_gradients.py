"""Losses with gradients in them beside PyTorch's `create_graph=True`, from equal parameters."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
pytestmark = pytest.mark.peers


class Critic(nn.Module):
    """Scores, and the norm of their slope for each sample (Gulrajani et al. 2017)."""

    def __init__(self):
        self.net = nn.Sequential(
            nn.Linear(5, 8), nn.LayerNorm(8), nn.LeakyReLU(0.2), nn.Linear(8, 6), nn.GELU(),
            nn.Linear(6, 1),
        )  # fmt: skip

    def forward(self, x):
        scores = self.net(x)
        slope = ops.gradient(ops.sum(scores), x)
        return scores, ops.sqrt(ops.sum(ops.square(slope), -1))


def penalised(outputs, target):
    scores, norms = outputs
    return ops.mean(scores * target) + 10.0 * ops.mean(ops.square(norms - 1.0))


def test_gradient_penalty():
    rng = np.random.default_rng(0)
    x, sign = rng.normal(size=(10, 16, 5)), np.sign(rng.normal(size=(10, 16, 1)))
    model = Critic()
    step = fnn.compile(model, penalised, optim.SGD(lr=0.05), dtype="float64", seed=3)
    step.evaluate(x[0], sign[0])  # there are parameters now
    theirs = torch.nn.Sequential(
        torch.nn.Linear(5, 8), torch.nn.LayerNorm(8), torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(8, 6), torch.nn.GELU(), torch.nn.Linear(6, 1),
    ).double()  # fmt: skip
    theirs.load_state_dict({
        n.removeprefix("net."): torch.tensor(p.value.copy())
        for n, p in model.named_parameters().items()
    })  # fmt: skip
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    for part, signs in zip(x, sign, strict=True):
        batch = torch.tensor(part, requires_grad=True)
        scores = theirs(batch)
        (slope,) = torch.autograd.grad(scores.sum(), batch, create_graph=True)
        norms = (slope**2).sum(-1).sqrt()
        loss = (scores * torch.tensor(signs)).mean() + 10.0 * ((norms - 1.0) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        found = step.gradients(part, signs)
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(
                found[f"net.{name}"], parameter.grad.numpy(), rtol=1e-9, atol=1e-11, err_msg=name
            )
        optimizer.step()
        np.testing.assert_allclose(float(step(part, signs)), loss.item(), rtol=1e-10)
    for name, parameter in theirs.named_parameters():
        ours = model.named_parameters()[f"net.{name}"].value
        np.testing.assert_allclose(ours, parameter.detach().numpy(), rtol=1e-9, atol=1e-11)
