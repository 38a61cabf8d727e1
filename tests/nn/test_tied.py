"""A weight that two layers share."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim, testing
from fastnn.errors import DataError, ShapeError

RNG = np.random.default_rng(5)
V, C = 11, 6
IDS, NEXT = RNG.integers(0, V, (2, 8, 5))


class Tied(nn.Module):
    def __init__(self, first: str = "emb", symbols: int = V, width: int = C) -> None:
        self.emb = nn.Embedding(symbols, width)
        self.mid = nn.Linear(width, width)
        self.out = nn.Linear(width, symbols)
        if first == "emb":
            self.out.weight = self.emb.weight
        else:
            self.emb.weight = self.out.weight

    def forward(self, ids: Any) -> Any:
        return self.out(ops.tanh(self.mid(self.emb(ids))))


def reference(model: nn.Module, ids: np.ndarray) -> np.ndarray:
    s = model.state_dict()
    hidden = np.tanh(s["emb.weight"][ids] @ s["mid.weight"].T + s["mid.bias"])
    return hidden @ s["emb.weight"].T + s["out.bias"]


@pytest.mark.parametrize("first", ["emb", "out"])
def test_there_is_one_parameter_and_all_sides_see_it(first, tmp_path):
    model = Tied(first)
    assert list(model.state_dict()) == ["emb.weight", "mid.weight", "mid.bias", "out.bias"]
    assert model.out.weight is model.emb.weight
    trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(lr=0.05), device="cpu", workers=2)
    before = model.emb.weight.value.copy()
    trainer.fit(IDS, NEXT, epochs=2, batch_size=4, verbose=False)
    assert (model.emb.weight.value != before).all()
    np.testing.assert_allclose(model.predict(IDS), reference(model, IDS), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "m.safetensors")
    trainer.save(tmp_path / "t.safetensors")
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), Tied(first), Tied("emb")]
    copies[2].load(tmp_path / "m.safetensors")
    copies[3].load(tmp_path / "t.safetensors")
    for other in copies:
        assert other.out.weight is other.emb.weight
        np.testing.assert_array_equal(other.predict(IDS), model.predict(IDS))
        other.out.weight.value[0] = 1.0
        np.testing.assert_allclose(other.predict(IDS), reference(other, IDS), rtol=1e-4, atol=1e-5)
        assert (model.emb.weight.value[0] != 1.0).any()


@pytest.mark.parametrize("first", ["emb", "out"])
def test_gradients_are_the_sum_of_both_uses(first):
    assert testing.gradcheck(Tied(first, 7, 3), RNG.integers(0, 7, (2, 3)))


def test_a_tied_weight_within_a_loop():
    class Decoder(nn.Module):
        def __init__(self) -> None:
            self.emb, self.cell, self.out = nn.Embedding(5, 3), nn.GRUCell(3, 3), nn.Linear(3, 5)
            self.out.weight = self.emb.weight

        def forward(self, ids: Any) -> Any:
            def step(x: Any, h: Any) -> Any:
                h = self.cell(x, h)
                return self.out(h), h

            x = self.emb(ids)
            return ops.loop(step, x, ops.zeros_state(x, 3))[0]

    assert testing.gradcheck(Decoder(), RNG.integers(0, 5, (2, 4)))


@pytest.mark.parametrize("rows", [1, 2, 7, 33, 300])
@pytest.mark.parametrize(("k", "c"), [(1, 1), (5, 3), (17, 33), (129, 64), (1030, 80)])
def test_products_with_a_weight_as_it_lies(rows, k, c):
    """Against NumPy: y and, through a step of SGD, the gradient of the weight and of the input."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            self.before = nn.Linear(2, c)
            self.weight = nn.Parameter((k, c), "normal")
            self.bias = nn.Parameter((k,), "normal")

        def forward(self, x: Any) -> Any:
            return ops.linear(self.before(x), self.weight, self.bias)

    model = Turned()
    x, y = RNG.normal(size=(rows, 2)), RNG.normal(size=(rows, k))
    step = fnn.compile(model, "mse", optim.SGD(lr=0.1), dtype="float64", device="cpu", workers=2)
    s = model.state_dict()
    hidden = x @ s["before.weight"].T + s["before.bias"]
    out = hidden @ s["weight"].T + s["bias"]
    d = 2.0 * (out - y) / y.size
    found = step.gradients(x, y)
    np.testing.assert_allclose(step(x, y), ((out - y) ** 2).mean(), rtol=1e-10)
    np.testing.assert_allclose(found["weight"], d.T @ hidden, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found["bias"], d.sum(axis=0), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(
        found["before.weight"], (d @ s["weight"]).T @ x, rtol=1e-8, atol=1e-12
    )


def test_the_bits_are_the_same_on_any_number_of_workers():
    found = []
    for workers in (1, 2, 3):
        model = Tied()
        step = fnn.compile(model, "cross_entropy", "adam", device="cpu", workers=workers, seed=3)
        for _ in range(3):
            step(IDS, NEXT)
        found.append({n: a.tobytes() for n, a in model.state_dict().items()})
    assert found[0] == found[1] == found[2]


def test_a_weight_of_another_shape_is_refused():
    model = Tied()
    model.out.weight = nn.Embedding(V, C + 1).weight
    with pytest.raises(ShapeError, match=r"layer 'out'.*expected a weight of shape \(11, 6\)"):
        model.predict(IDS)


@pytest.mark.peers
@pytest.mark.parametrize("first", ["emb", "out"])
def test_ten_steps_beside_pytorch(first):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

    class Theirs(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.emb = torch.nn.Embedding(V, C)
            self.mid = torch.nn.Linear(C, C)
            self.out = torch.nn.Linear(C, V)
            self.out.weight = self.emb.weight

        def forward(self, ids: Any) -> Any:
            return self.out(torch.tanh(self.mid(self.emb(ids))))

    theirs, ours = Theirs().double(), Tied(first)
    step = fnn.compile(
        ours, "cross_entropy", optim.Adam(lr=0.05, weight_decay=0.1), dtype="float64", device="cpu"
    )
    ours.load_state_dict(theirs.state_dict())  # with both names of the weight, and tensors
    rule = torch.optim.Adam(theirs.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(10):
        rule.zero_grad()
        out = theirs(torch.tensor(IDS))
        loss = torch.nn.functional.cross_entropy(out.reshape(-1, V), torch.tensor(NEXT).reshape(-1))
        loss.backward()
        gradients = step.gradients(IDS, NEXT)
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(
                gradients[name], parameter.grad.numpy(), rtol=1e-6, atol=1e-9
            )
        np.testing.assert_allclose(step(IDS, NEXT), loss.item(), rtol=1e-8)
        rule.step()
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(
            ours.state_dict()[name], parameter.detach().numpy(), rtol=1e-6, atol=1e-9
        )
    broken = {**theirs.state_dict(), "out.weight": theirs.out.weight + 1}
    with pytest.raises(DataError, match=r"'out.weight' is the same parameter as 'emb.weight'"):
        ours.load_state_dict(broken)


def test_a_shared_weight_is_frozen_and_trained_by_any_of_its_names():
    for chosen in ("out", "out.*", "out.weight", "emb"):
        model = Tied().freeze(chosen)
        assert not model.emb.weight.trainable
    trainer = fnn.Trainer(Tied(), "cross_entropy", parameters="out", device="cpu")
    assert list(trainer.trained) == ["emb.weight", "out.bias"]
    before = trainer.model.state_dict()
    trainer.fit(IDS, NEXT, verbose=False)
    moved = [n for n, v in trainer.model.state_dict().items() if (v != before[n]).any()]
    assert moved == ["emb.weight", "out.bias"]
