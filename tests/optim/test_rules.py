"""Each rule of `rules.py` against its oracle and its peers; what all of them promise."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError
from fastnn.optim import schedules
from tests import naive_optimizers as naive
from tests.optim.rules import RULES
from tests.optim.test_optimizers import (
    LR,
    STEPS,
    Slopes,
    assert_close,
    data,
    follow,
    loss,
    train,
)
from tests.train.models import fresh, state, vectors


@pytest.mark.parametrize("name", RULES)
def test_ten_steps(name: str) -> None:
    """Ten steps with decay, a schedule, and a group with a rate of its own."""
    rule = RULES[name]
    schedule = schedules.LinearWarmup(3) * schedules.StepDecay(4, gamma=0.5)
    groups = {"ga*": {"lr": 0.2, "weight_decay": 0.0}}
    more = {"weight_decay": 0.3, "schedule": schedule, "groups": groups}
    for options in ({}, more) if rule.common else ({},):
        before, after = train(rule.make(lr=LR, **options))
        assert not np.allclose(before["weight"], after["weight"])
        decoupled = (
            rule.common and rule.make(weight_decay=0.3).options["decoupled_weight_decay"] > 0
        )
        bare = not options

        def rate(n: str, t: int, bare: bool = bare) -> float:
            if bare:
                return LR
            return schedule(t, base_lr=0.2 if fnmatch.fnmatchcase(n, "ga*") else LR)

        decay = 0.0 if bare or decoupled else 0.3

        def step(p: Any, g: Any, s: Any, lr: float, t: int, decoupled: bool = decoupled) -> Any:
            # the groups' "gain" has no decay, and is the one with seven numbers
            shrink = 0.3 * lr if decoupled and not bare and p.shape != (7,) else 0.0  # noqa: B023
            return rule.step(p - shrink * p, g, s, lr, t)

        want = follow(before, step, lr=rate, decay=lambda n, d=decay: 0.0 if n == "gain" else d)
        assert_close(after, want)


@pytest.mark.parametrize("name", ["ema", "swa", "asgd", "ema of lookahead"])
def test_ten_steps_of_averages(name: str) -> None:
    rule, states = RULES[name], {}

    def step(p: Any, g: Any, s: Any, lr: float, t: int) -> Any:
        states[p.shape] = s
        return rule.step(p, g, s, lr, t)

    trainer = fnn.Trainer(Slopes(), loss, rule.make(lr=LR), dtype="float64", seed=3)
    before = trainer.get_parameters()
    after = follow(before, step)
    trainer.fit(data(), np.zeros(STEPS * 4), batch_size=4, shuffle=False, verbose=False)
    with trainer.averaged():
        found = trainer.get_parameters()
    for key, p in after.items():
        average = states[p.shape]["average"]
        assert np.abs(average - p).max() > 1e-4
        np.testing.assert_allclose(found[key], average, rtol=1e-10, atol=1e-12, err_msg=key)


def test_each_rule_of_single_numbers_can_be_averaged() -> None:
    """No array of its own is taken for an average of parameters."""
    for name, rule in RULES.items():
        optimizer = rule.make(lr=LR)
        if optimizer.elementwise and not name.startswith(("ema", "swa", "asgd")):
            assert optim.EMA(optimizer).slots[-1] == "average", name


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.SGD(momentum=1.0), r"momentum: expected a number in \[0, 1\), got 1"),
        (lambda: optim.Muon(momentum=1), r"momentum: expected a number in \[0, 1\), got 1"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), r"betas: expected numbers in \[0, 1\), got 1"),
        (lambda: optim.SGD(lr=-0.1), "lr"),
    ],
)
def test_the_limits_themselves_are_refused(make: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()


@pytest.mark.parametrize("name", RULES)
def test_single_precision(name: str) -> None:
    before, after = train(RULES[name].make(lr=LR), "float32")
    for key, value in follow(before, RULES[name].step).items():
        np.testing.assert_allclose(after[key], value, rtol=3e-4, atol=3e-5, err_msg=key)


@pytest.mark.parametrize("name", RULES)
def test_workers_and_resume(name: str, tmp_path: Path) -> None:
    """The same bits on one to four workers, and in a run that goes on from a checkpoint."""
    x, y = vectors(60)
    options: dict[str, Any] = {"batch_size": 8, "verbose": False}
    found = []
    for workers in (1, 2, 3, 4):
        trainer = fresh("wide", optimizer=RULES[name].make(lr=0.01), workers=workers)
        trainer.fit(x, y, epochs=2, **options)
        found.append(state(trainer))
    assert all(one == found[0] for one in found)
    first = fresh("wide", optimizer=RULES[name].make(lr=0.01), workers=2)
    first.fit(x, y, epochs=1, **options)
    first.save(tmp_path / "run")
    again = fresh("wide", optimizer=RULES[name].make(lr=0.01), workers=3)
    again.fit(x, y, epochs=2, resume=tmp_path / "run", **options)
    assert state(again) == found[0]


@pytest.mark.parametrize("name", RULES)
def test_finite_below_the_guards_limit(name: str) -> None:
    """Steps without doubt end in finite numbers, whatever gradients come one after the other."""
    sizes = [0.0, 1e-38, 1e-30, 1e-15, 1e-8, 1.0, 1e8, 9e17]
    gradients = np.array([s * sign for s in sizes for sign in (1.0, -1.0)], np.float32)
    count = len(gradients)
    first, second = np.repeat(gradients, count), np.tile(gradients, count)
    model = nn.Embedding(count * count, 1, weight_init=1.0)
    step = fnn.compile(
        model, lambda o, y: ops.total(o * y), RULES[name].make(lr=1e3), device="cpu",
        stop_on_nonfinite=False,
    )  # fmt: skip
    for g in (first, second, second, first, 0 * first, second):
        step(np.arange(len(g)), g.reshape(-1, 1))
        for segment, array in step.session.memory.items():
            if segment.startswith(("params", "slots/")):
                assert np.isfinite(array).all(), segment
        # from 1e15 on the next step would be doubtful
        model.weight.value[...] = np.clip(model.weight.value, -1e15, 1e15)


@pytest.mark.parametrize("name", RULES)
def test_nan_passes(name: str) -> None:
    """A NaN among the gradients isn't lost in a sign or a limit."""
    rows, g = np.arange(3), np.array([[1.0], [np.nan], [-1.0]], np.float32)
    model = nn.Embedding(3, 1, weight_init=1.0)
    step = fnn.compile(
        model, lambda o, t: ops.total(o * t), RULES[name].make(lr=0.1), device="cpu",
        stop_on_nonfinite=False,
    )  # fmt: skip
    for _ in range(2):
        step(rows, np.nan_to_num(g, nan=0.5))
    assert np.isfinite(np.array(model.weight)).all()
    step(rows, g)
    found = np.isnan(np.array(model.weight)).ravel()
    assert found[1]
    assert not (found[0] or found[2]) or not RULES[name].make(lr=0.1).elementwise


@pytest.mark.peers
@pytest.mark.parametrize("name", [n for n, rule in RULES.items() if rule.torch])
def test_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    rule = RULES[name]
    assert rule.torch is not None
    kind, options = rule.torch

    def start(p: np.ndarray) -> Any:
        tensor = torch.tensor(p, requires_grad=True)
        return [tensor], getattr(torch.optim, kind)([tensor], lr=LR, **options)

    def step(p: np.ndarray, g: np.ndarray, s: dict[str, Any], lr: float, t: int) -> np.ndarray:
        if "it" not in s:
            s["it"] = start(p)
        (tensor,), optimizer = s["it"]
        tensor.grad = torch.tensor(g)
        optimizer.step()
        return tensor.detach().numpy().copy()

    before, after = train(rule.make(lr=LR))
    for key, value in follow(before, step).items():
        np.testing.assert_allclose(after[key], value, rtol=1e-6, atol=1e-7, err_msg=key)


@pytest.mark.peers
@pytest.mark.parametrize("name", [n for n, rule in RULES.items() if rule.optax])
def test_optax(name: str) -> None:
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    rule = RULES[name]
    assert rule.optax is not None
    kind, options = rule.optax
    optimizer = getattr(optax, kind)(LR, **options)

    def step(p: np.ndarray, g: np.ndarray, s: dict[str, Any], lr: float, t: int) -> np.ndarray:
        updates, s["it"] = optimizer.update(g, s.get("it", optimizer.init(p)), p)
        return np.asarray(optax.apply_updates(p, updates))

    before, after = train(rule.make(lr=LR))
    with jax.enable_x64(True):
        want = follow(before, step)
    for key, value in want.items():
        np.testing.assert_allclose(after[key], value, rtol=1e-6, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5, 5)])
def test_muon_of_weights_that_lie_transposed(shape: tuple[int, int]) -> None:
    """A linear layer's weight is (out, in) to its user, and (in, out) in memory."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, shape[0])), rng.normal(size=(4, shape[1]))
    for match in (True, False):
        model = nn.Linear(*shape, bias=False)
        optimizer = optim.Muon(lr=0.1, match_rms=match)
        step = fnn.compile(
            model, lambda o, t: ops.total(o * t), optimizer, dtype="float64", device="cpu"
        )
        p = np.array(model.weight)
        step(x, y)
        want = naive.muon(p, y.T @ x, {}, 0.1, 1, match_rms=match)
        np.testing.assert_allclose(np.array(model.weight), want, rtol=1e-9, atol=1e-11)


@pytest.mark.peers
@pytest.mark.parametrize("match", [False, True])
def test_muon_is_pytorchs(match: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its bfloat16 left out."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())

    def step(p: np.ndarray, g: np.ndarray, s: dict[str, Any], lr: float, t: int) -> np.ndarray:
        if "it" not in s:
            tensor = torch.tensor(p, requires_grad=True)
            kind = torch.optim.Muon if p.ndim == 2 else torch.optim.AdamW
            more = {"adjust_lr_fn": "match_rms_adamw" if match else "original"}
            more = more if p.ndim == 2 else {}
            s["it"] = tensor, kind([tensor], lr=LR, weight_decay=0.1, **more)
        tensor, optimizer = s["it"]
        tensor.grad = torch.tensor(g)
        optimizer.step()
        return tensor.detach().numpy().copy()

    before, after = train(optim.Muon(lr=LR, match_rms=match))
    for key, value in follow(before, step).items():
        np.testing.assert_allclose(after[key], value, rtol=1e-6, atol=1e-7, err_msg=key)


def test_large_matrices_by_rows_and_workers() -> None:
    """Rows longer than a run of sums, and a batch as large as a side."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 40)), rng.normal(size=(40, 1100))
    for make, oracle in (
        (optim.LAMB, naive.lamb), (optim.Adafactor, naive.adafactor),
        (lambda lr: optim.Muon(lr=lr, weight_decay=0.0),
         lambda *a: naive.muon(*a, decay=0.0)),
    ):  # fmt: skip
        model = nn.Linear(40, 1100, bias=False)
        step = fnn.compile(
            model, lambda o, t: ops.total(o * t), make(lr=0.01), dtype="float64", workers=2,
            device="cpu",
        )  # fmt: skip
        p, state_ = np.array(model.weight), {}  # type: ignore[var-annotated]
        for t in (1, 2):
            step(x, y)
            p = oracle(p, y.T @ x, state_, 0.01, t)
        np.testing.assert_allclose(np.array(model.weight), p, rtol=1e-7, atol=1e-9)
