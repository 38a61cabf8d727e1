"""Zoneout and weight drop: what they do in training, and what evaluation is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import OptionError
from fastnn.graph.value import Value
from fastnn.testing import gradcheck
from tests import naive_recurrent as naive
from tests.nn.test_noise import Always, trained

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6, 3))
LENGTHS = np.array([6, 1, 0, 4])

#: kinds of layers, their oracle's cell and the probabilities of their states
KINDS: dict[str, tuple[Callable[..., Any], naive.Cell, Any]] = {
    "RNN": (nn.RNN, naive.rnn_cell(0), 0.3),
    "LSTM": (nn.LSTM, naive.lstm_cell, (0.2, 0.4)),
    "LSTM h": (nn.LSTM, naive.lstm_cell, (0.2, 0.0)),
    "LSTM peepholes": (
        lambda *a, **k: nn.LSTM(*a, peepholes=True, **k), naive.lstm_cell, (0.2, 0.4),
    ),
    "GRU": (nn.GRU, naive.gru_cell(False), 0.3),
    "GRU before": (lambda *a, **k: nn.GRU(*a, reset="before", **k), naive.gru_cell(True), 0.3),
}  # fmt: skip


class Outputs(nn.Module):
    """The outputs of a recurrent layer."""

    def __init__(self, layer: nn.Module):
        self.layer = layer

    def forward(self, x: Value) -> Value:
        return self.layer(x)[0]


class Padded(nn.Module):
    """All results for sequences with lengths."""

    def __init__(self, layer: nn.Module):
        self.layer = layer

    def forward(self, x: Value, lengths: Value) -> Any:
        return self.layer(x, lengths=lengths)


def mixed(cell: naive.Cell, chances: Any, size: int) -> naive.Cell:
    """Evaluation: the mean of the old state and the new one (Krueger et al. 2017, section 3.1)."""

    def step(zx: Any, zh: Any, w: Any, states: Any) -> Any:
        parts = chances if isinstance(chances, tuple) else (chances,) * size
        after = cell(zx, zh, w, states)
        return [p * a + (1 - p) * b for p, a, b in zip(parts, states, after, strict=True)]

    return step


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_evaluation_is_the_oracles(name: str, reverse: bool) -> None:
    make, cell, chances = KINDS[name]
    layer = make(3, 5, zoneout=chances, bidirectional=reverse)
    layer.store("float64")
    suffix = "_l0_reverse" if reverse else "_l0"
    names = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
    w = {key: np.array(getattr(layer, n + suffix).value) for key, n in names.items()}
    w |= {key: w[key].T for key in ("w_ih", "w_hh")}
    if "peepholes" in name:
        w["peephole"] = np.array(getattr(layer, "weight_peephole" + suffix).value)
    count = 2 if "LSTM" in name else 1
    states = [np.zeros((4, 5))] * count
    y, finals = naive.sequence(mixed(cell, chances, count), X, w, states, LENGTHS, reverse)
    found, last = Padded(layer).predict(
        (np.where(np.arange(6)[:, None] < LENGTHS[:, None, None], X, np.nan), LENGTHS)
    )
    np.testing.assert_allclose(found[..., 5:] if reverse else found, y, atol=1e-12)
    ends = last[-1] if count == 2 else [last[-1]]
    for a, b in zip(ends, finals, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_gradients(name: str) -> None:
    make, _, chances = KINDS[name]
    for more in ({"zoneout": chances}, {"weight_drop": 0.4},
                 {"zoneout": chances, "weight_drop": 0.4, "num_layers": 2}):  # fmt: skip
        assert gradcheck(Outputs(make(3, 4, **more)), X[:2, :3])
        assert gradcheck(Always(Outputs(make(3, 4, **more))), X[:2, :3])


def test_a_unit_keeps_its_state_or_takes_the_new_one() -> None:
    """In training; and with which probability."""
    layer = nn.RNN(3, 40, zoneout=0.3)
    x = RNG.normal(size=(30, 20, 3))
    y, _ = trained(Outputs(layer), x, 40)
    w = {n: np.array(p.value) for n, p in layer.named_parameters().items()}
    before = np.concatenate([np.zeros((30, 1, 40)), y[:, :-1]], axis=1)
    new = np.tanh(
        x @ w["weight_ih_l0"].T + w["bias_ih_l0"] + before @ w["weight_hh_l0"].T + w["bias_hh_l0"]
    )
    kept = y == before
    np.testing.assert_allclose(np.where(kept, new, y), new, atol=1e-12)
    assert kept.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / kept.size))
    flat = kept.reshape(30, -1).astype(float)
    assert abs(np.corrcoef(flat[0], flat[1])[0, 1]) < 0.2  # samples, steps: masks of their own
    assert abs(np.corrcoef(kept[:, 0].ravel(), kept[:, 1].ravel())[0, 1]) < 0.15


def test_states_that_are_always_kept() -> None:
    y, _ = trained(Outputs(nn.GRU(3, 5, zoneout=1.0)), X, 5)
    assert (y == 0.0).all()


def test_weight_drop_has_one_mask_for_all_steps() -> None:
    """The outputs are those of a layer with some recurrent weights 0 and the others doubled."""
    layer = nn.RNN(1, 1, bias=False, weight_drop=0.5)
    x, seen = np.ones((2, 4, 1)), set()
    for seed in range(12):
        y, _ = trained(Outputs(layer), x, 1, seed=seed)
        u, v = (float(p.value[0, 0]) for p in layer.named_parameters().values())
        for factor in (0.0, 2.0):
            h, want = 0.0, []
            for _ in range(4):
                h = np.tanh(u + factor * v * h)
                want.append(h)
            if np.allclose(y[:, :, 0], want, atol=1e-12):
                seen.add(factor)
                break
        else:
            raise AssertionError(f"neither mask gives {y}")
    assert seen == {0.0, 2.0}


def test_weight_drop_has_one_mask_for_all_steps_beside_zoneout() -> None:
    """Each step keeps the state, or makes one by the same weights as the others."""
    layer = nn.RNN(1, 1, bias=False, weight_drop=0.5, zoneout=0.3)
    seen = set()
    for seed in range(12):
        y, _ = trained(Outputs(layer), np.ones((1, 12, 1)), 1, seed=seed)
        u, v = (float(p.value[0, 0]) for p in layer.named_parameters().values())
        h = y[0, :, 0]
        moved = h[1:] != h[:-1]
        fits = [
            factor
            for factor in (0.0, 2.0)
            if np.allclose(h[1:][moved], np.tanh(u + factor * v * h[:-1])[moved], atol=1e-12)
        ]
        assert fits, h
        seen.update(fits)
    assert seen == {0.0, 2.0}


def test_weights_are_dropped_at_their_rate_and_only_in_training() -> None:
    layer = nn.LSTM(3, 32, weight_drop=0.3, num_layers=2)
    plain = nn.LSTM(3, 32, num_layers=2)
    layer.store("float64")
    plain.store("float64")
    plain.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(layer.predict(X)[0], plain.predict(X)[0])
    model = Outputs(layer)
    step = fnn.compile(model, lambda y, _: y.sum(), optim.SGD(lr=0.0), dtype="float64")
    found = step.gradients(X, X)
    for name in ("layer.weight_hh_l0", "layer.weight_hh_l1"):
        dropped = (found[name] == 0.0).mean()
        assert dropped == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / found[name].size))
    assert (found["layer.weight_ih_l0"] != 0.0).all()


OPTIONS: dict[str, dict[str, Any]] = {
    "zoneout": {"zoneout": 0.2}, "weight drop": {"weight_drop": 0.3},
    "both": {"zoneout": 0.2, "weight_drop": 0.3, "num_layers": 2, "bidirectional": True},
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_workers_and_resume(kind: str, options: str, tmp_path: Path) -> None:
    x, y = RNG.normal(size=(20, 5, 3)).astype("f"), RNG.normal(size=(20, 5, 2)).astype("f")

    def made(workers: int) -> fnn.Trainer:
        layer = getattr(nn, kind)(3, 17, **OPTIONS[options])
        model = nn.Sequential(layer, nn.Linear(layer.output_size, 2))
        return fnn.Trainer(model, "mse", "adam", workers=workers)

    def bits(trainer: fnn.Trainer) -> list[bytes]:
        return [v.tobytes() for v in trainer.get_parameters().values()]

    fit: dict[str, Any] = {"batch_size": 6, "verbose": False}
    found = []
    for workers in (1, 2, 3, 4):
        trainer = made(workers)
        trainer.fit(x, y, epochs=2, **fit)
        found.append(bits(trainer))
    assert all(one == found[0] for one in found)
    first = made(2)
    first.fit(x, y, epochs=1, **fit)
    first.save(tmp_path / "run")
    again = made(3)
    again.fit(x, y, epochs=2, resume=tmp_path / "run", **fit)
    assert bits(again) == found[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zoneout": -0.1}, r"zoneout in \[0, 1\]"),
        ({"zoneout": 1.5}, r"zoneout in \[0, 1\]"),
        ({"zoneout": (0.1, 0.2, 0.3)}, "one for each of"),
        ({"zoneout": "a"}, "zoneout to be a number"),
        ({"zoneout": 0.1, "bptt": 4}, "zoneout takes no bptt"),
        ({"weight_drop": 1.0}, r"weight_drop in \[0, 1\)"),
        ({"weight_drop": None}, "weight_drop to be a number"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        nn.LSTM(3, 4, **options)
