"""Who owns a model's memory: views, copies, seeds, freezing, changes of the structure."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import OptionError

RNG = np.random.default_rng(3)
X = RNG.normal(size=(24, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def reference(model: nn.Module) -> np.ndarray:
    """What `net` computes, by NumPy from its state dict."""
    s = model.state_dict()
    return np.tanh(X @ s["0.weight"].T + s["0.bias"]) @ s["2.weight"].T + s["2.bias"]


def agrees(model: nn.Module) -> bool:
    return bool(np.allclose(model.predict(X), reference(model), rtol=1e-4, atol=1e-5))


def trainer(model: nn.Module, optimizer: Any = "adam", **options: Any) -> fnn.Trainer:
    return fnn.Trainer(model, "cross_entropy", optimizer, device="cpu", workers=1, **options)


def fit(made: fnn.Trainer, epochs: int = 1, **options: Any) -> None:
    made.fit(X, Y, epochs=epochs, batch_size=8, verbose=False, **options)


# -------------------------------------------------------------------- views


def test_a_view_taken_before_the_first_fit_stays_connected():
    model = net()
    weight, bias = model[0].weight.value, model[2].bias.value
    trained = trainer(model)
    before = weight.copy()
    fit(trained)
    assert (weight != before).any()
    np.testing.assert_array_equal(weight, model.state_dict()["0.weight"])
    bias[:] = 7.0
    np.testing.assert_allclose(model.predict(X), reference(model), rtol=1e-4)
    assert (model.state_dict()["2.bias"] == 7.0).all()


def test_a_view_of_memory_that_was_left_can_not_be_taken_for_the_parameter():
    layer = nn.Linear(4, 5)
    layer.weight.value = np.ones((5, 4))
    view = layer.weight.value
    model = nn.Sequential(layer, nn.Linear(5, 2))
    model.store()
    model.to("float64")
    np.testing.assert_array_equal(layer.weight.value, np.ones((5, 4)))
    assert np.isnan(view).all()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1.0


def test_models_that_share_layers_keep_one_memory():
    body, one, two = nn.Linear(4, 5), nn.Linear(5, 2), nn.Linear(5, 2)
    first, second = nn.Sequential(body, nn.Tanh(), one), nn.Sequential(body, nn.Tanh(), two)
    first.predict(X)
    second.predict(X)
    store = second.store()
    assert first.store() is store  # not to and fro
    fit(trainer(first))
    assert agrees(first)
    assert agrees(second)


# -------------------------------------------------------------------- seeds


LOOKS = {
    "state_dict": lambda m: m.state_dict(), "value": lambda m: m[2].weight.value,
    "predict": lambda m: m.predict(X), "part": lambda m: m[0].predict(X),
    "copy": lambda m: copy.deepcopy(m).predict(X), "store": lambda m: m.store(),
}  # fmt: skip


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_look_at_a_new_model_does_not_take_the_seed_away(look, dtype, tmp_path):
    model, other = net(), net()
    LOOKS[look](model)
    if look == "store":
        model.save(tmp_path / "new.safetensors")
    for made in (model, other):
        trainer(made, seed=4, dtype=dtype)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], array)


def test_a_seed_changes_nothing_that_somebody_has_set():
    model = net()
    model[0].bias.value = [1, 2, 3, 4, 5]
    model[2].weight.value[1, 1] = 9.0
    kept = model.state_dict()
    trainer(model, seed=1)
    after = model.state_dict()
    for name in ("0.bias", "2.weight"):
        np.testing.assert_array_equal(after[name], kept[name])
    assert (after["0.weight"] != kept["0.weight"]).any()
    trainer(model, seed=2)  # the first one that was chosen counts
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, after[name])


# -------------------------------------------------------------------- freezing


DECAYING = optim.SGD(lr=0.1, momentum=0.9, weight_decay=0.1)


@pytest.mark.parametrize("optimizer", [DECAYING, optim.Adam(lr=0.05, clip_global_norm=1.0)])
def test_a_frozen_parameter_does_not_move_and_goes_on_later(optimizer):
    model = net()
    made = trainer(model, optimizer)
    fit(made, 2)
    before = model.state_dict()
    model.freeze("0.*")
    fit(made, 2)
    middle = model.state_dict()
    for name, array in middle.items():
        assert (array != before[name]).any() == name.startswith("2."), name
    assert agrees(model)
    model.unfreeze()
    fit(made, 1)
    assert all((a != middle[n]).any() for n, a in model.state_dict().items())
    assert agrees(model)


def test_freezing_before_the_first_fit_and_by_any_name():
    model = net()
    model[0].weight.requires_grad = False
    model[0].bias.trainable = False
    before = model.state_dict()
    fit(trainer(model))
    changed = {n for n, a in model.state_dict().items() if (a != before[n]).any()}
    assert changed == {"2.weight", "2.bias"}
    assert not model[0].trainable
    model[0].requires_grad_(True)
    assert model[0].weight.trainable
    with pytest.raises(OptionError, match=r"freeze: 'body' matches none"):
        model.freeze("body")
    with pytest.raises(OptionError, match="trainable to be True or False, got 'no'"):
        model[0].weight.trainable = "no"
    model.freeze()
    with pytest.raises(OptionError, match="all are frozen"):
        fit(trainer(model))


def test_freezing_between_steps_and_in_callbacks():
    model = net()
    step = fnn.compile(model, "cross_entropy", DECAYING, device="cpu", workers=1)
    step(X, Y)
    model.freeze("2")
    before = model.state_dict()
    step(X, Y)
    assert {n for n, a in model.state_dict().items() if (a != before[n]).any()} == {
        "0.weight", "0.bias",
    }  # fmt: skip
    seen: list[np.ndarray] = []

    class Thaw(fnn.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any) -> None:
            seen.append(np.array(model[2].weight))
            if epoch == 1:
                model.unfreeze("2.*")

    fit(trainer(model), 3, callbacks=[Thaw()])
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[1] != seen[2]).any()
    batches: list[np.ndarray] = []

    class Halt(fnn.callbacks.Callback):
        def on_train_batch_begin(self, step: int, logs: Any) -> None:
            batches.append(np.array(model[0].bias))
            if step == 1:
                model.freeze("0.bias")

    fit(trainer(model), 1, callbacks=[Halt()])
    assert (batches[0] != batches[1]).any()
    np.testing.assert_array_equal(batches[1], batches[2])


def test_unknown_attributes_of_a_parameter_are_refused():
    layer = nn.Linear(3, 2)
    with pytest.raises(AttributeError, match="got 'requires_gard', which has no meaning"):
        layer.weight.requires_gard = False
    with pytest.raises(OptionError, match="'grad' can be read only"):
        layer.weight.grad = None


# -------------------------------------------------------------------- anything in any order


class Spy:
    """The model's parameters as NumPy arrays of their own, trained by NumPy's SGD."""

    def __init__(self, model: nn.Module):
        self.arrays = {n: a.astype(np.float64) for n, a in model.state_dict().items()}

    def step(self, frozen: set[str]) -> None:
        s = self.arrays
        hidden = np.tanh(X @ s["0.weight"].T + s["0.bias"])
        logits = hidden @ s["2.weight"].T + s["2.bias"]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        d = p / p.sum(axis=1, keepdims=True)
        d[np.arange(len(Y)), Y] -= 1.0
        d /= len(Y)
        back = (d @ s["2.weight"]) * (1.0 - hidden**2)
        grads = {"0.weight": back.T @ X, "0.bias": back.sum(axis=0), "2.weight": d.T @ hidden,
                 "2.bias": d.sum(axis=0)}  # fmt: skip
        for name in s:
            if name not in frozen:
                s[name] = s[name] - 0.5 * (grads[name] + 0.01 * s[name])


@pytest.mark.parametrize("seed", range(6))
def test_all_sides_agree_after_any_operations(seed, tmp_path):
    rng = np.random.default_rng(seed)
    model = net()
    trainer(model, seed=seed)
    spy, frozen, views = Spy(model), set(), {}
    options = dict(device="cpu", workers=1)
    rule = optim.SGD(lr=0.5, weight_decay=0.01)
    step: Any = None
    for _ in range(25):
        operation = rng.choice(
            ["copy", "pickle", "freeze", "unfreeze", "predict", "step", "step", "fit", "save",
             "share", "to", "view", "assign", "step copy"]
        )  # fmt: skip
        if operation in ("copy", "pickle"):
            model, step = COPIES["deepcopy" if operation == "copy" else "pickle"](model), None
            views = {}
        elif operation in ("freeze", "unfreeze"):
            name = str(rng.choice(list(spy.arrays)))
            getattr(model, operation)(name)
            (frozen.add if operation == "freeze" else frozen.discard)(name)
        elif operation == "predict":
            model[0].predict(X)
        elif operation in ("step", "fit") and len(frozen) < 4:
            dtype = model.store().dtype
            if operation == "fit":
                made = fnn.Trainer(model, "cross_entropy", rule, dtype=dtype, **options)
                made.fit(X, Y, batch_size=24, verbose=False)
            else:
                step = step or fnn.compile(model, "cross_entropy", rule, dtype=dtype, **options)
                step(X, Y)
            spy.step(frozen)
        elif operation == "step copy" and step is not None:
            step = COPIES["pickle"](step)
            model, views = step.model, {}
        elif operation == "save":
            model.save(tmp_path / "m.safetensors")
            fresh = net().load(tmp_path / "m.safetensors")
            np.testing.assert_array_equal(fresh.predict(X), model.predict(X))
            model.load(tmp_path / "m.safetensors")
        elif operation == "share":
            wider = nn.Sequential(model, nn.Linear(2, 3))
            wider.predict(X)
            step, views = None, {}
        elif operation == "to":
            model.to(str(rng.choice(["float32", "float64"])))
            step, views = None, {}
        elif operation == "view":
            views = {n: p.value for n, p in model.named_arrays().items()}
        elif operation == "assign":
            spy.arrays["2.bias"] = rng.normal(size=2)
            model[2].bias.value = spy.arrays["2.bias"]
        for name, array in model.state_dict().items():
            np.testing.assert_allclose(array, spy.arrays[name], rtol=2e-4, atol=2e-5)
            if name in views:
                np.testing.assert_array_equal(views[name], array)
        assert agrees(model), operation
        assert set(model.named_parameters()) == set(spy.arrays) - frozen


# -------------------------------------------------------------------- recurrent layers as models


def test_recurrent_layers_alone_and_in_a_sequential():
    x = RNG.normal(size=(6, 7, 4)).astype(np.float32)
    lstm = nn.LSTM(4, 5)
    outputs, [(h, c)] = lstm.predict(x)
    assert (outputs.shape, h.shape, c.shape) == ((6, 7, 5), (6, 5), (6, 5))
    np.testing.assert_array_equal(outputs[:, -1], h)
    model = nn.Sequential(lstm, nn.GRU(5, 3, bidirectional=True), nn.Linear(6, 2))
    assert model.predict(x).shape == (6, 7, 2)
    made = fnn.Trainer(model, "cross_entropy", device="cpu")
    y = RNG.integers(0, 2, (6, 7))
    before = model.state_dict()
    made.fit(x, y, batch_size=3, verbose=False)
    assert all((a != before[n]).any() for n, a in model.state_dict().items())
    again = nn.Sequential(lstm)
    np.testing.assert_array_equal(again.predict(x), lstm.predict(x)[0])


def test_public_names():
    assert issubclass(nn.LSTM, nn.Recurrent)
    assert fnn.Metric("error", lambda out, y: out).name == "error"

    class Twice(nn.Module):
        def forward(self, x: fnn.Value) -> fnn.Value:
            assert isinstance(x, fnn.Value)
            return x + x

    np.testing.assert_array_equal(Twice().predict(X), 2 * X)
