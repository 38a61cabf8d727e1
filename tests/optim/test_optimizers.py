"""Every optimiser against the oracle, step by step, in float64."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError
from fastnn.kernels.simd import fma
from fastnn.optim import schedules
from tests import naive

STEPS, LR = 10, 0.05


class Slopes(nn.Module):
    """Two parameters, one of which is summed with x, so that every gradient is known: the loss is
    the mean over samples of sum(x * (weight + gain)) + sum of squares / 2."""

    def __init__(self) -> None:
        self.weight = nn.Parameter((3, 5), "normal")
        self.gain = nn.Parameter((7,), "normal")

    def forward(self, x: Any, z: Any) -> Any:
        """x (batch, 15), z (batch, 7)."""
        flat = ops.reshape(ops.flatten(x, 1), x.shape[0], 3, 5)
        a = ops.sum_features(ops.multiply(flat, self.weight))  # (batch, 3)
        b = ops.multiply(z, self.gain)  # (batch, 7)
        return ops.sum_features(a), ops.sum_features(ops.square(b))


def loss(outputs: Any, target: Any) -> Any:
    return ops.mean(outputs[0]) + 0.5 * ops.mean(outputs[1])


def gradients(p: dict[str, np.ndarray], x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "weight": x.mean(axis=0).reshape(3, 5),
        "gain": (z * z).mean(axis=0) * p["gain"],
    }


Step = Callable[..., np.ndarray]
#: name -> (ours, the oracle's step of (p, g, state, lr, step))
PAIRS: dict[str, tuple[Callable[..., optim.Optimizer], Step]] = {
    "sgd": (optim.SGD, lambda p, g, s, lr, t, **m: naive.sgd(p, g, s, lr, **m)),
    "momentum": (
        lambda **m: optim.SGD(momentum=0.9, **m),
        lambda p, g, s, lr, t, **m: naive.sgd(p, g, s, lr, momentum=0.9, **m),
    ),
    "dampening": (
        lambda **m: optim.SGD(momentum=0.8, dampening=0.3, **m),
        lambda p, g, s, lr, t, **m: naive.sgd(p, g, s, lr, momentum=0.8, dampening=0.3, **m),
    ),
    "nesterov": (
        lambda **m: optim.SGD(momentum=0.9, nesterov=True, **m),
        lambda p, g, s, lr, t, **m: naive.sgd(p, g, s, lr, momentum=0.9, nesterov=True, **m),
    ),
    "adagrad": (
        lambda **m: optim.Adagrad(lr_decay=0.1, initial_accumulator_value=0.2, **m),
        lambda p, g, s, lr, t, **m: naive.adagrad(p, g, s, lr, t, lr_decay=0.1, initial=0.2, **m),
    ),
    "rmsprop": (optim.RMSprop, lambda p, g, s, lr, t, **m: naive.rmsprop(p, g, s, lr, **m)),
    "rmsprop centered": (
        lambda **m: optim.RMSprop(alpha=0.9, centered=True, **m),
        lambda p, g, s, lr, t, **m: naive.rmsprop(p, g, s, lr, alpha=0.9, centered=True, **m),
    ),
    "rmsprop momentum": (
        lambda **m: optim.RMSprop(momentum=0.7, eps=1e-4, **m),
        lambda p, g, s, lr, t, **m: naive.rmsprop(p, g, s, lr, momentum=0.7, eps=1e-4, **m),
    ),
    "rmsprop centered momentum": (
        lambda **m: optim.RMSprop(momentum=0.7, centered=True, **m),
        lambda p, g, s, lr, t, **m: naive.rmsprop(p, g, s, lr, momentum=0.7, centered=True, **m),
    ),
    "adadelta": (
        lambda **m: optim.Adadelta(rho=0.8, **m),
        lambda p, g, s, lr, t, **m: naive.adadelta(p, g, s, lr, rho=0.8, **m),
    ),
    "adam": (optim.Adam, naive.adam),
    "adam with other betas": (
        lambda **m: optim.Adam(betas=(0.5, 0.7), eps=1e-3, **m),
        lambda p, g, s, lr, t, **m: naive.adam(p, g, s, lr, t, 0.5, 0.7, 1e-3, **m),
    ),
}


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    return rng.normal(size=(STEPS * 4, 15)), rng.normal(size=(STEPS * 4, 7))


def train(optimizer: optim.Optimizer, dtype: str = "float64") -> tuple[Any, Any]:
    """Initial and final parameters of 10 steps in the data's order."""
    trainer = fnn.Trainer(Slopes(), loss, optimizer, dtype=dtype, seed=3)
    before = trainer.get_parameters()
    history = trainer.fit(data(), np.zeros(STEPS * 4), batch_size=4, shuffle=False, verbose=False)
    assert np.isfinite(history["loss"][0])
    assert trainer.step == STEPS
    return before, trainer.get_parameters()


Change = Callable[[str, np.ndarray, dict[str, np.ndarray]], np.ndarray]


def follow(
    before: dict[str, np.ndarray],
    step: Step,
    clip: Change = lambda name, g, all_: g,
    lr: Callable[[str, int], float] = lambda name, t: LR,
    decay: Callable[[str], float] = lambda name: 0.0,
    decoupled: float = 0.0,
) -> dict[str, np.ndarray]:
    """The same by the oracle."""
    p = {n: v.astype(np.float64) for n, v in before.items()}
    states: dict[str, dict[str, np.ndarray]] = {n: {} for n in p}
    x, z = data()
    for t in range(STEPS):
        rows = slice(4 * t, 4 * t + 4)
        g = gradients(p, x[rows], z[rows])
        clipped = {n: clip(n, g[n], g) for n in p}
        for n in p:
            rate = lr(n, t)
            start = p[n] - rate * decoupled * p[n]
            # the L2 term is of the parameter before the decoupled decay
            total = clipped[n] + decay(n) * p[n]
            p[n] = step(start, total, states[n], rate, t + 1)
    return p


def assert_close(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("name", PAIRS)
def test_ten_steps(name: str) -> None:
    ours, step = PAIRS[name]
    before, after = train(ours(lr=LR))
    assert not np.allclose(before["weight"], after["weight"])
    assert_close(after, follow(before, step))


@pytest.mark.parametrize("name", PAIRS)
def test_weight_decay(name: str) -> None:
    ours, step = PAIRS[name]
    before, after = train(ours(lr=LR, weight_decay=0.3))
    assert_close(after, follow(before, step, decay=lambda _: 0.3))
    plain = follow(before, step)
    assert np.abs(after["weight"] - plain["weight"]).max() > 1e-7


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adadelta"])
def test_decoupled_weight_decay(name: str) -> None:
    ours, step = PAIRS[name]
    before, after = train(ours(lr=LR, decoupled_weight_decay=0.4))
    assert_close(after, follow(before, step, decoupled=0.4))


def test_adamw() -> None:
    before, after = train(optim.AdamW(lr=LR, weight_decay=0.2))
    assert_close(
        after,
        follow(before, lambda p, g, s, lr, t: naive.adamw(p, g, s, lr, t, weight_decay=0.2)),
    )


def norm(*arrays: np.ndarray) -> float:
    return float(np.sqrt(sum((a * a).sum() for a in arrays)))


CLIPS: dict[str, tuple[dict[str, float], Change]] = {
    "value": ({"clip_value": 0.1}, lambda n, g, every: np.clip(g, -0.1, 0.1)),
    "norm": ({"clip_norm": 0.3}, lambda n, g, every: g * min(1.0, 0.3 / (norm(g) + 1e-6))),
    "global norm": (
        {"clip_global_norm": 0.5},
        lambda n, g, every: g * min(1.0, 0.5 / (norm(*every.values()) + 1e-6)),
    ),
    "global norm, then value": (
        {"clip_global_norm": 0.5, "clip_value": 0.05},
        lambda n, g, every: np.clip(
            g * min(1.0, 0.5 / (norm(*every.values()) + 1e-6)), -0.05, 0.05
        ),
    ),
    "a norm that is never reached": ({"clip_global_norm": 1e6}, lambda n, g, every: g),
}


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_clipping(clip: str, name: str) -> None:
    options, change = CLIPS[clip]
    ours, step = PAIRS[name]
    before, after = train(ours(lr=LR, **options))
    assert_close(after, follow(before, step, change))
    if "never" not in clip:
        plain = follow(before, step)
        assert max(np.abs(after[n] - plain[n]).max() for n in plain) > 1e-4


@pytest.mark.parametrize("name", PAIRS)
def test_groups(name: str) -> None:
    ours, step = PAIRS[name]
    groups = {"ga*": {"lr": 0.01, "weight_decay": 0.0}, "*": {"weight_decay": 0.5}}
    before, after = train(ours(lr=LR, weight_decay=0.1, groups=groups))
    want = follow(
        before,
        step,
        lr=lambda n, t: 0.01 if fnmatch.fnmatchcase(n, "ga*") else LR,
        decay=lambda n: 0.0 if n == "gain" else 0.5,
    )
    assert_close(after, want)


def test_groups_clip_by_themselves() -> None:
    before, after = train(optim.SGD(lr=LR, groups={"gain": {"clip_norm": 0.1}}))

    def change(name: str, g: np.ndarray, every: dict[str, np.ndarray]) -> np.ndarray:
        return g * min(1.0, 0.1 / (norm(g) + 1e-6)) if name == "gain" else g

    assert_close(after, follow(before, PAIRS["sgd"][1], change))


@pytest.mark.parametrize("name", PAIRS)
def test_schedule(name: str) -> None:
    ours, step = PAIRS[name]
    schedule = schedules.LinearWarmup(3) * schedules.StepDecay(4, gamma=0.5)
    groups = {"gain": {"lr": 0.2}}
    before, after = train(ours(lr=LR, schedule=schedule, groups=groups))
    want = follow(before, step, lr=lambda n, t: schedule(t, base_lr=0.2 if n == "gain" else LR))
    assert_close(after, want)


@pytest.mark.parametrize("name", PAIRS)
def test_single_precision(name: str) -> None:
    ours, step = PAIRS[name]
    before, after = train(ours(lr=LR), "float32")
    for key, value in follow(before, step).items():
        np.testing.assert_allclose(after[key], value, rtol=3e-4, atol=3e-5, err_msg=key)


def test_gradients_are_visible() -> None:
    model = Slopes()
    trainer = fnn.Trainer(model, loss, optim.SGD(lr=LR), dtype="float64", keep_gradients=True)
    before = trainer.get_parameters()
    x, z = (a[:4] for a in data())
    trainer.fit((x, z), np.zeros(4), batch_size=4, verbose=False)
    want = gradients(before, x, z)
    np.testing.assert_allclose(model.weight.grad, want["weight"], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(model.gain.grad, want["gain"], rtol=1e-12, atol=1e-14)


def test_gradients_that_were_not_kept_are_refused() -> None:
    model = Slopes()
    trainer = fnn.Trainer(model, loss, optim.SGD(lr=LR), dtype="float64")
    x, z = (a[:4] for a in data())
    trainer.fit((x, z), np.zeros(4), batch_size=4, verbose=False)
    with pytest.raises(OptionError, match="keep_gradients=True"):
        _ = model.weight.grad


class SignDescent(optim.SGD):
    """A user's rule that keeps the name of its base class."""

    @staticmethod
    def scalars(t: int, lr: float, *options: float) -> tuple[float, ...]:
        return (-lr,)

    def _rule(self) -> Any:
        return type(self).rule

    @staticmethod
    def rule(p: Any, g: Any, rate: Any) -> tuple[Any, ...]:
        return (fma(g * 2.0, rate, p),)


def test_a_subclass_with_its_own_rule() -> None:
    """It must not get its base's kernels, whichever of them came first."""
    plain = train(optim.SGD(lr=LR))
    before, after = train(SignDescent(lr=LR))
    assert_close(after, follow(before, lambda p, g, s, lr, t: p - lr * 2.0 * g))
    again = train(optim.SGD(lr=LR))
    assert all((plain[1][n] == again[1][n]).all() for n in plain[1])


# ---------------------------------------------------------------- options

BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: optim.SGD(lr=-1.0), "lr: expected .* not negative"),
    (lambda: optim.SGD(lr=float("nan")), "lr: expected a number"),
    (lambda: optim.SGD(lr="fast"), "lr: expected a number, got 'fast'"),
    (lambda: optim.SGD(nesterov=True), "nesterov: expected momentum > 0"),
    (lambda: optim.SGD(momentum=0.9, nesterov=True, dampening=0.1), "dampening = 0"),
    (lambda: optim.SGD(momentum=1.5), r"momentum: expected a number in \[0, 1\), got 1.5"),
    (lambda: optim.SGD(groups={"x": {"momentum": 0.9}}), "momentum: set it for all"),
    (lambda: optim.SGD(groups={"x": {"speed": 1}}), "unknown option 'speed'; expected some of"),
    (lambda: optim.SGD(groups={"x": {"lr": -1}}), "group 'x'.*lr"),
    (lambda: optim.SGD(weight_decay=-0.1), "weight_decay"),
    (lambda: optim.SGD(clip_value=0.0), "clip_value: expected a positive number or None"),
    (lambda: optim.SGD(clip_norm=-1.0), "clip_norm"),
    (lambda: optim.SGD(clip_global_norm=0), "clip_global_norm: expected a positive number"),
    (lambda: optim.SGD(clip_norm=1.0, clip_global_norm=1.0), "one of the two; leave one out"),
    (lambda: optim.Adam(betas=(1.0, 0.9)), r"betas: expected numbers in \[0, 1\), got 1.0"),
    (lambda: optim.RMSprop(alpha=1.0), "alpha"),
    (lambda: optim.RMSprop(groups={"x": {"centered": True}}), "centered: expected the same"),
    (lambda: optim.Adadelta(rho=-0.1), "rho"),
    (lambda: optim.Adam(speed=3.0), "unknown option 'speed'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), BAD, ids=[w for _, w in BAD])
def test_bad_options(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()


def test_unmatched_group_is_an_error() -> None:
    """A pattern that no parameter fits is a slip of the pen."""
    with pytest.raises(OptionError, match=r"group 'wieght' matches no parameter.*'weight'"):
        train(optim.SGD(lr=LR, groups={"wieght": {"lr": 0.1}}))
