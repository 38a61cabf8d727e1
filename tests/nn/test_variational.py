"""Dropout with one mask for all steps, and of whole words."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import OptionError


class Shown(nn.Module):
    """A layer's output in training, handed out by way of the gradient of a shift."""

    def __init__(self, layer, shape):
        self.layer = layer
        self.seen = nn.Parameter(shape, 0.0, trainable=False)

    def forward(self, x):
        y = self.layer(x)
        y = y[0] if isinstance(y, tuple) else y
        fnn.ops.store_state(fnn.ops.reshape(y, self.seen.shape), self.seen)
        return y


def in_training(layer, x, shape):
    model = Shown(layer, shape)
    trainer = fnn.Trainer(model, "mse", optim.SGD(lr=0.0), workers=1)
    trainer.fit(x, np.zeros(shape, np.float32), epochs=1, batch_size=len(x), shuffle=False,
                verbose=False)  # fmt: skip
    return model.seen.value.copy()


def test_a_word_is_left_out_wherever_the_batch_has_it():
    layer = nn.Embedding(20, 3, weight_init=1.0, dropout=0.4)
    ids = np.random.default_rng(0).integers(0, 20, (8, 30))
    y = in_training(layer, ids, (8, 30, 3))
    values = {k: {round(float(v), 5) for v in y[ids == k].ravel()} for k in range(20)}
    assert all(len(found) == 1 for found in values.values())
    assert {v for found in values.values() for v in found} == {0.0, round(1 / 0.6, 5)}
    np.testing.assert_array_equal(layer.predict(ids), 1.0)


def test_between_layers_one_mask_holds_for_all_steps():
    """The second layer adds up its inputs: without a mask in common they differ over time."""
    layer = nn.RNN(1, 16, 2, nonlinearity="relu", dropout=0.5, variational=True)
    state = {name: np.zeros(p.shape) for name, p in layer.named_parameters().items()}
    state["bias_ih_l0"] = np.ones(16)
    state["weight_ih_l1"] = np.eye(16)
    layer.load_state_dict(state)
    y = in_training(layer, np.zeros((6, 9, 1), np.float32), (6, 9, 16))
    assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(y, np.repeat(y[:, :1], 9, axis=1))
    assert len({row.tobytes() for row in y[:, 0]}) == 6
    layer.variational = False
    apart = in_training(layer, np.zeros((6, 9, 1), np.float32), (6, 9, 16))
    assert (apart != np.repeat(apart[:, :1], 9, axis=1)).any()


def test_options_that_do_nothing_are_refused():
    with pytest.raises(OptionError, match="with dropout above 0"):
        nn.LSTM(2, 3, 2, variational=True)
    with pytest.raises(OptionError, match=r"dropout in \[0, 1\)"):
        nn.Embedding(5, 2, dropout=1.0)
