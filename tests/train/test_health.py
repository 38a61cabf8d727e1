"""Gradient norms by layer and by time step."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError
from fastnn.train.callbacks import GradientHealth
from fastnn.train.time_gradients import time_gradients

STEPS, UNITS = 6, 5


class Net(nn.Module):
    """A recurrent layer whose final state (or all outputs) is the model's output."""

    def __init__(self, layer, all_steps=False):
        self.layer, self.all_steps = layer, all_steps

    def forward(self, x, lengths=None):
        outputs, finals = self.layer(x, lengths=lengths)
        if self.all_steps:
            return outputs
        final = finals[0][0] if isinstance(finals[0], tuple) else finals[0]
        return final


def data(features=UNITS, batch=3, all_steps=False, units=UNITS):
    rng = np.random.default_rng(0)
    shape = (batch, STEPS, units) if all_steps else (batch, units)
    return rng.normal(size=(batch, STEPS, features)), rng.normal(size=shape)


LAYERS = {
    "rnn": lambda **o: nn.RNN(UNITS, UNITS, **o),
    "irnn": lambda **o: nn.RNN(UNITS, UNITS, nonlinearity="relu", identity_init=1.0, **o),
    "lstm": lambda **o: nn.LSTM(UNITS, UNITS, **o),
    "gru": lambda **o: nn.GRU(UNITS, UNITS, **o),
    "gru before": lambda **o: nn.GRU(UNITS, UNITS, reset="before", **o),
}


def double(model):
    model.store("float64")
    return model


def numeric(model, x, y, eps=1e-6):
    """Norm over batch and gates of the loss's gradient at each step, by central differences.

    Each gate of each step gets a constant of its own through an input feature of its own.
    """
    layer = model.layer
    gates = layer.gates * UNITS
    wide_layer = type(layer)(UNITS + gates, UNITS, **wide_options(layer))
    wide = double(Net(wide_layer, model.all_steps))
    for name, parameter in layer.named_arrays().items():
        value = np.array(parameter.value)
        if name.startswith("weight_ih"):
            value = np.concatenate([value, np.eye(gates)], axis=1)
        setattr(wide_layer, name, value)
    step = fnn.compile(wide, nn.MSELoss(), optim.SGD(lr=0.0), dtype="float64", workers=1)
    norms = np.zeros(STEPS)
    base = np.concatenate([x, np.zeros((*x.shape[:2], gates))], axis=2)
    for t in range(STEPS):
        for b in range(len(x)):
            for g in range(gates):
                found = []
                for sign in (1, -1):
                    changed = base.copy()
                    changed[b, t, UNITS + g] = sign * eps
                    found.append(step.evaluate(changed, y))
                norms[t] += ((found[0] - found[1]) / (2 * eps)) ** 2
    return np.sqrt(norms)


def wide_options(layer):
    names = ("nonlinearity", "reset", "bidirectional")
    return {n: getattr(layer, n) for n in names if hasattr(layer, n)}


@pytest.mark.parametrize("all_steps", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_norms_are_those_of_central_differences(name, all_steps):
    model = double(Net(LAYERS[name](), all_steps))
    x, y = data(all_steps=all_steps)
    found = time_gradients(model, x, y, "mse")
    assert list(found) == ["layer.l0"]
    np.testing.assert_allclose(found["layer.l0"], numeric(model, x, y), rtol=1e-6, atol=1e-10)


def test_layers_and_directions_by_name():
    model = Net(nn.LSTM(UNITS, 4, 2, bidirectional=True), all_steps=True)
    x, y = data(all_steps=True, units=8)
    found = time_gradients(model, x, y, nn.MSELoss())
    assert list(found) == ["layer.l0", "layer.l0_reverse", "layer.l1", "layer.l1_reverse"]
    assert all(norms.shape == (STEPS,) and (norms > 0).all() for norms in found.values())


def test_nothing_of_the_model_changes():
    model = Net(nn.LSTM(UNITS, UNITS, stateful=3))
    x, y = (a.astype(np.float32) for a in data())
    step = fnn.compile(model, "mse", optim.SGD(lr=0.1), workers=1, keep_gradients=True)
    step(x, y)
    before = model.state_dict(), {n: np.array(p.grad) for n, p in model.named_parameters().items()}
    time_gradients(model, x, y, "mse")
    for name, value in before[0].items():
        np.testing.assert_array_equal(value, model.state_dict()[name])
    for name, parameter in model.named_parameters().items():
        np.testing.assert_array_equal(parameter.grad, before[1][name])


def test_past_the_end_there_is_no_gradient():
    class Masked(Net):
        def forward(self, x, lengths):
            return super().forward(x, lengths)

    x, y = data()
    lengths = np.array([2, 4, 3])
    norms = time_gradients(Masked(nn.GRU(UNITS, UNITS)), (x, lengths), y, "mse")["layer.l0"]
    assert (norms[:4] > 0).all()
    assert (norms[4:] == 0).all()


def test_no_recurrent_layer():
    with pytest.raises(OptionError, match="found none"):
        time_gradients(nn.Linear(3, 2), np.zeros((4, 3)), np.zeros((4, 2)), "mse")


def trained(scale, epochs=2, steps=40):
    """A run with an RNN whose recurrent weights are `scale` times the identity."""
    rng = np.random.default_rng(0)
    x = 0.01 * rng.normal(size=(16, steps, 3)).astype(np.float32)
    y = rng.normal(size=(16, 4)).astype(np.float32)
    model = Net(nn.RNN(3, 4, nonlinearity="relu", identity_init=scale))
    model.layer.bias_ih_l0.init = lambda shape, rng: np.full(shape, 0.1)
    health = GradientHealth(x, y)
    trainer = fnn.Trainer(model, "mse", optim.SGD(lr=1e-30), workers=1)
    history = trainer.fit(x, y, epochs=epochs, batch_size=16, callbacks=[health], verbose=False)
    return health, trainer, history


@pytest.mark.parametrize(
    ("scale", "verdict"), [(0.5, "vanishing"), (1.0, "healthy"), (1.5, "exploding")]
)
def test_verdicts(scale, verdict):
    health, *_ = trained(scale)
    assert health.verdict("layer.l0") == verdict
    norms = health.times["layer.l0"][-1]
    np.testing.assert_allclose(norms[:-1] / norms[1:], scale, rtol=0.05)
    assert verdict in str(health)


def test_layers_norms_are_those_of_the_last_step():
    health, trainer, history = trained(1.0, epochs=3)
    squares = [float((p.grad**2).sum()) for p in trainer.model.parameters()]
    assert health.layers["layer"][-1] == pytest.approx(np.sqrt(sum(squares)), rel=1e-6)
    assert health.epochs == [0, 1, 2]
    assert len(health.times["layer.l0"]) == 3
    assert history["gradient_norm"] == health.layers["layer"]


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    health, *_ = trained(0.5)
    figure = health.plot(tmp_path / "health.png")
    assert (tmp_path / "health.png").stat().st_size > 1000
    assert len(figure.axes) == 2
    assert figure.axes[1].get_yscale() == "log"
    with pytest.raises(ValueError, match="no epoch"):
        GradientHealth().plot()
    assert str(GradientHealth()) == "no epoch has ended"


def test_inputs_without_targets():
    with pytest.raises(OptionError, match="both x and y"):
        GradientHealth(np.zeros((2, 3)))


def test_own_loops_are_left_out():
    class Own(nn.Module):
        def __init__(self):
            self.mix = nn.Linear(UNITS + 4, 4)

        def forward(self, x):
            def turn(x_t, h):
                h = ops.tanh(self.mix(ops.concatenate(x_t, h)))
                return h, h

            return ops.loop(turn, x, ops.zeros_state(x, 4))[1]

    with pytest.raises(OptionError, match="found none"):
        time_gradients(Own(), *data(units=4), "mse")
