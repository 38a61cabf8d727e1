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


class Slopes(nn.Module):
    """A function's first gradients to x, each the gradient of the sum of the one before."""

    def __init__(self, function, orders):
        self.function, self.orders = function, orders

    def forward(self, x, target):
        found, y = [], ops.sum(self.function(x, target))
        for _ in range(self.orders):
            found.append(ops.gradient(y, x))
            y = ops.sum(found[-1])
        return tuple(found)


def _power(x, exponent):
    """PyTorch's own second gradient is NaN where both are 0."""
    small = torch.where(exponent == 2.0, x * x, torch.where(exponent == 1.0, x, 1.0 + x * 0.0))
    return torch.where(exponent > 2.0, x ** torch.where(exponent > 2.0, exponent, 5.0), small)


functional = torch.nn.functional
#: functions that are smooth where a formula in other ops has a corner or a pole
SMOOTH = {
    "bce_with_logits": (
        nn.BCEWithLogitsLoss(), functional.binary_cross_entropy_with_logits, 3,
    ),
    "pos_weight": (
        nn.BCEWithLogitsLoss(pos_weight=np.array([2.0, 0.5, 3.0])),
        lambda x, t: functional.binary_cross_entropy_with_logits(
            x, t, pos_weight=torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
        ),
        3,
    ),
    "huber": (nn.HuberLoss(), functional.huber_loss, 2),
    "smooth_l1": (nn.SmoothL1Loss(), functional.smooth_l1_loss, 2),
    "power": (lambda x, t: x ** (t * 4.0), lambda x, t: _power(x, t * 4.0), 4),
    "power of 0": (lambda x, t: x**0.0 + x, lambda x, t: x, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_where_a_formula_has_a_corner(name):
    """Logits of 0, outputs that are their targets, powers of 0."""
    ours, theirs, orders = SMOOTH[name]
    x = np.array([[0.0, 0.25, -0.3], [0.0, 0.75, 30.0], [0.0, 0.5, 0.2]])
    target = np.array([[0.5, 0.25, 0.0], [0.9, 0.25, 0.0], [0.0, 0.5, 0.8]])
    if name == "power":
        x = np.abs(x)
    model = Slopes(ours, orders)
    step = fnn.compile(model, lambda outputs, y: ops.sum(outputs[0]), dtype="float64", workers=1)
    step.evaluate((x, target), target)  # it computes in float64 from here on
    found = model.predict(x, target)
    value, other = torch.tensor(x, requires_grad=True), torch.tensor(target)
    y = theirs(value, other).sum()
    for got in found if orders > 1 else (found,):
        if y.requires_grad:
            (expected,) = torch.autograd.grad(y, value, create_graph=True)
        else:
            expected = torch.zeros_like(value)
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-10, atol=1e-13)
        y = expected.sum()
