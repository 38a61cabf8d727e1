"""Copies of models, trainers and steps: whole, independent, and picklable."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import OptionError, OutOfMemoryError
from tests.nn.test_memory import COPIES, X, Y, agrees, fit, net, trainer

# -------------------------------------------------------------------- copies


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_model_is_independent_and_whole(how):
    model = net()
    fit(trainer(model))
    before = model.state_dict()
    made = COPIES[how](model)
    fit(trainer(made), 3)
    assert agrees(made)
    assert agrees(model)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
        assert (made.state_dict()[name] != array).any()
    made[0].weight.value = np.zeros((5, 4))
    assert agrees(made)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("optimizer", [optim.Adam(lr=0.05), optim.SGD(lr=0.1, momentum=0.9)])
def test_a_copy_of_a_trainer_goes_on_bit_for_bit(how, optimizer):
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm(5), nn.Dropout(0.2), nn.Linear(5, 2))
    first = trainer(model, optimizer, seed=5)
    fit(first, 2)
    second = COPIES[how](first)
    assert second.model is not model
    assert (second.epoch, second.step) == (first.epoch, first.step)
    fit(first, 2)
    fit(second, 2)
    for name, array in first.get_parameters().items():
        np.testing.assert_array_equal(second.get_parameters()[name], array)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_step_goes_on_bit_for_bit(how):
    schedule = optim.schedules.Exponential(0.9)
    step = fnn.compile(
        net(), "cross_entropy", optim.Adam(lr=0.05, schedule=schedule), workers=2, device="cpu"
    )
    for _ in range(3):
        step(X, Y)
    other = COPIES[how](step)
    assert [step(X, Y) for _ in range(3)] == [other(X, Y) for _ in range(3)]
    assert other.steps == 6


def test_copies_of_recurrent_layers_can_be_initialised_again():
    for layer in (
        nn.LSTM(3, 4, forget_bias=1.0, peepholes=True), nn.Embedding(5, 3, padding_idx=0),
        nn.RNN(3, 4, nonlinearity="relu", identity_init=1.0), nn.SCRN(3, 4), nn.GRU(3, 4),
    ):  # fmt: skip
        other = COPIES["pickle"](layer)
        for model in (layer, other):
            model.initialize(7)
        for name, array in layer.state_dict().items():
            np.testing.assert_array_equal(other.state_dict()[name], array)


# -------------------------------------------------------------------- copies and files of runs


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_made_in_a_callback_goes_on_from_there(how):
    made = trainer(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm(5), nn.Linear(5, 2)), seed=2)
    copies: list[fnn.Trainer] = []

    class Copy(fnn.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            if epoch == 1:
                copies.append(COPIES[how](made))

        def on_train_batch_end(self, step: int, logs: Any) -> None:
            if made.step == 2:
                copies.append(COPIES[how](made))

    fit(made, 4, callbacks=[Copy()])
    assert [c.place for c in copies] == [(0, 16), (2, 0)]
    for other in copies:
        fit(other, 4 - other.epoch)
        assert other.step == made.step
        for name, array in made.get_parameters().items():
            np.testing.assert_array_equal(other.get_parameters()[name], array)


def test_a_trainer_with_metrics_and_callbacks_of_any_kind_is_picklable():
    made = trainer(net(), metrics=["accuracy"])
    hook = fnn.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)
    fit(made, callbacks=[hook])
    other = pickle.loads(pickle.dumps(made))
    assert other.evaluate(X, Y) == made.evaluate(X, Y)


def test_a_parameter_with_a_local_initialiser_is_picklable_once_it_has_contents():
    layer = nn.Linear(3, 2, weight_init=lambda shape, rng: rng.normal(size=shape))
    with pytest.raises(OptionError, match=r"parameter 'weight'.*call model\.store\(\) first"):
        pickle.dumps(layer)
    layer.store()
    other = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(other.weight.value, layer.weight.value)
    with pytest.raises(OptionError, match="pickle did not keep it"):
        other.initialize(3)


def test_a_checkpoint_remembers_what_was_frozen(tmp_path):
    model = net()
    made = trainer(model)
    model.freeze("0")
    fit(made, 2)
    made.save(tmp_path / "t.safetensors")
    fit(made, 1)
    again = net().freeze("0")
    other = trainer(again)
    fit(other, 3, resume=tmp_path / "t.safetensors")
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)
    with pytest.warns(
        UserWarning, match=r"had 2 frozen parameters, this one has 0.*0\.bias, 0\.weight"
    ):
        trainer(net()).load(tmp_path / "t.safetensors")


@pytest.mark.parametrize("size", [10**9, 10**10])
def test_a_model_larger_than_any_memory(size):
    with pytest.raises(OutOfMemoryError, match="bytes were requested; use a smaller model"):
        nn.Linear(size, size).state_dict()
