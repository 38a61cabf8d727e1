"""What is recorded over epochs is what the layers have after each."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.callbacks import LayerStatistics
from fastnn.diagnostics import signals
from fastnn.errors import DataError, OptionError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def trained(*callbacks, epochs=3):
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    trainer = fnn.Trainer(model, "cross_entropy", optim.SGD(lr=0.1), seed=1)
    history = trainer.fit(
        X, Y, epochs=epochs, batch_size=16, callbacks=list(callbacks), verbose=False
    )
    return model, trainer, history


def test_statistics_of_each_epoch() -> None:
    watch = LayerStatistics(X[:20], Y[:20])
    model, _, _ = trained(watch)
    assert watch.epochs == [0, 1, 2]
    found = signals(model, X[:20], Y[:20], "cross_entropy")
    for layer in found.layers:
        for what, values in watch.layers[layer.name].items():
            assert len(values) == 3
            np.testing.assert_equal(values[-1], getattr(layer, what))
    before, _, _ = trained(epochs=2)
    for name, parameter in model.named_parameters().items():
        old = np.asarray(before.named_parameters()[name].value, np.float64)
        ratio = np.linalg.norm(np.asarray(parameter.value) - old) / np.linalg.norm(old) / 4
        assert watch.updates[name][-1] == pytest.approx(ratio, rel=1e-6)
    assert "update / weight" in str(watch)


def test_the_run_is_the_same() -> None:
    model, _, _ = trained(LayerStatistics(X[:20], Y[:20]))
    other, _, _ = trained()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[name])


def test_before_and_pictures(tmp_path) -> None:
    watch = LayerStatistics(X[:20], Y[:20])
    assert str(watch) == "no epoch has ended"
    with pytest.raises(DataError, match="nothing to plot"):
        watch.plot()
    with pytest.raises(OptionError, match="targets"):
        LayerStatistics(X, None)
    trained(watch)
    pytest.importorskip("matplotlib")
    watch.plot(tmp_path / "s.png")
    assert (tmp_path / "s.png").stat().st_size > 1000
