"""Outputs and gradients of layers against NumPy and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.diagnostics import signals
from fastnn.errors import OptionError, ShapeError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4))
Y = np.arange(6) % 3


class Net(nn.Module):
    """Layers, a function in `forward`, a layer that is used twice, a recurrent layer."""

    def __init__(self) -> None:
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 8)
        self.act = nn.Tanh()
        self.lstm = nn.LSTM(8, 5)
        self.c = nn.Linear(5, 3)

    def forward(self, x):
        x = ops.relu(self.b(self.act(self.a(x))))
        steps = ops.reshape(x, (x.shape[0], 1, 8))
        return self.c(self.lstm(steps)[0][:, -1])


def test_layers_have_their_outputs() -> None:
    model = Net().to("float64")
    found = signals(model, X)
    assert [(s.name, s.kind) for s in found.layers] == [
        ("a", "linear"), ("act", "tanh"), ("b", "linear"), ("relu", "relu"), ("lstm", "lstm"),
        ("c", "linear"),
    ]  # fmt: skip
    p = {name: np.asarray(value.value) for name, value in model.named_parameters().items()}
    hidden = X @ p["a.weight"].T + p["a.bias"]
    np.testing.assert_allclose(found["a"].output, hidden, rtol=1e-12)
    np.testing.assert_allclose(found["act"].output, np.tanh(hidden), rtol=1e-12)
    after = np.tanh(hidden) @ p["b.weight"].T + p["b.bias"]
    np.testing.assert_allclose(found["b"].output, after, rtol=1e-12)
    np.testing.assert_allclose(found["relu"].output, np.maximum(after, 0), rtol=1e-12)
    np.testing.assert_array_equal(found.outputs[0], model.predict(X))
    assert np.isnan(found.loss)
    assert found["a"].gradient is None
    assert found.parameters == {}


@pytest.mark.peers
def test_gradients_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to("float64")
    peer = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    peer = peer.double()
    peer.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    found = signals(model, X, Y, "cross_entropy")
    value, kept = torch.tensor(X), []
    for layer in peer:
        value = layer(value)
        value.retain_grad()
        kept.append(value)
    loss = torch.nn.functional.cross_entropy(value, torch.tensor(Y))
    loss.backward()
    assert found.loss == pytest.approx(loss.item(), rel=1e-12)
    for layer, tensor in zip(found.layers, kept, strict=True):
        np.testing.assert_allclose(layer.output, tensor.detach().numpy(), rtol=1e-12)
        np.testing.assert_allclose(layer.gradient, tensor.grad.numpy(), rtol=1e-10, atol=1e-15)
    for name, tensor in peer.named_parameters():
        np.testing.assert_allclose(
            found.parameters[name], tensor.grad.numpy(), rtol=1e-10, atol=1e-15
        )
    rms = np.sqrt((kept[0].grad.numpy() ** 2).mean()) * 6
    assert found["0"].gradient_rms == pytest.approx(rms, rel=1e-10)


def test_shares() -> None:
    x = np.array([[-9.0, 0.5, 2.0], [-1.0, 0.1, -5.0]])
    found = signals(nn.ReLU(), x).layers[0]
    assert found.dead == 1 / 3
    assert np.isnan(found.saturated)
    found = signals(nn.Tanh(), x).layers[0]
    assert found.saturated == 2 / 6  # -9 and -5; 2 has a slope of 0.07
    assert np.isnan(found.dead)
    assert signals(nn.Sigmoid(), x).layers[0].saturated == 2 / 6


def test_nothing_of_the_model_changes() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm(8), nn.Dropout(0.5), nn.Linear(8, 3))
    trainer = fnn.Trainer(model, "cross_entropy", "adam", keep_gradients=True)
    trainer.fit(X.astype(np.float32), Y, batch_size=3, verbose=False)
    before = {k: v.copy() for k, v in model.state_dict().items()}
    grad = model.named_parameters()["0.weight"].grad.copy()
    found = signals(model, X, Y, "cross_entropy", training=True)
    assert (found["2"].output == 0).any()
    assert [s.name for s in signals(model, X).layers] == ["0", "1", "3"]  # it drops nothing here
    np.testing.assert_array_equal(model.named_parameters()["0.weight"].grad, grad)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_layer_that_is_used_twice_shows_its_last_output() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            return ops.tanh(ops.tanh(self.a(ops.tanh(self.a(x)))))

    model = Twice()
    found = signals(model, X)
    assert [s.name for s in found.layers] == ["a", "tanh", "tanh_2", "tanh_3"]
    np.testing.assert_array_equal(found["tanh_3"].output, found.outputs[0])
    np.testing.assert_allclose(np.tanh(found["a"].output), found["tanh_2"].output, atol=1e-6)


def test_losses_are_no_layers() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 1)

        def forward(self, x):
            return {"c": self.a(x), "v": self.b(x)}

    targets = {"c": Y, "v": X[:, :1]}
    for loss in ({"c": "cross_entropy", "v": "mse"}, lambda out, y: ops.mean(out["v"] - y["v"])):
        found = signals(Two(), X, targets, loss)
        assert [s.name for s in found.layers] == ["a", "b"]


def test_bad_input_is_refused() -> None:
    with pytest.raises(OptionError, match="both y and loss"):
        signals(Net(), X, Y)
    with pytest.raises(OptionError, match=r"one of \['a', 'act'"):
        signals(Net(), X)["d"]
    with pytest.raises(ShapeError):
        signals(Net(), X[:, :3])
