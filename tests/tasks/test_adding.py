"""The adding problem: its data, that it is learned, and the picture."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fastnn.errors import OptionError
from fastnn.tasks import adding


def test_two_marks_one_in_each_half():
    x, y = adding.adding_problem(50, 21, np.random.default_rng(0))
    assert x.shape == (50, 21, 2)
    np.testing.assert_array_equal(x[:, :10, 1].sum(axis=1), 1)
    np.testing.assert_array_equal(x[:, 10:, 1].sum(axis=1), 1)
    np.testing.assert_allclose((x[:, :, 0] * x[:, :, 1]).sum(axis=1), y[:, 0])
    assert ((y - 1) ** 2).mean() == pytest.approx(adding.GUESS, abs=0.06)


def test_batches_follow_from_seed_and_epoch():
    def first(epoch, seed=0):
        batches = adding.FreshBatches(8, 4, 3, seed)
        batches.set_epoch(epoch)
        return next(iter(batches))[0]

    np.testing.assert_array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))
    assert not np.array_equal(first(1), first(1, seed=1))


@pytest.mark.parametrize("net", ["lstm", "gru"])
def test_short_sequences_are_learned(net):
    errors = adding.train_adding(net, 6, hidden=16, updates=1500, every=100, lr=0.01, workers=1)
    assert errors[-1] < 0.02
    assert len(errors) <= 15


@pytest.mark.parametrize("net", adding.NETS)
def test_every_net_runs(net):
    errors = adding.train_adding(net, 5, hidden=4, updates=20, every=10, workers=1)
    assert len(errors) == 2
    assert np.isfinite(errors).all()


def test_mistakes():
    with pytest.raises(OptionError, match="rnn, irnn, lstm, gru"):
        adding.AddingNet("transformer")
    with pytest.raises(OptionError, match="2 or more"):
        adding.adding_problem(3, 1, np.random.default_rng(0))


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    curves = {("rnn", 10): [0.17, 0.16], ("lstm", 10): [0.1, 0.01], ("lstm", 20): [0.2]}
    figure = adding.draw_adding(curves, 100, tmp_path / "adding.png")
    assert (tmp_path / "adding.png").stat().st_size > 1000
    assert [len(ax.lines) for ax in figure.axes] == [3, 2]


def test_example(tmp_path, capsys):
    path = Path(__file__).parents[2] / "examples" / "adding_problem.py"
    spec = importlib.util.spec_from_file_location("example_adding_problem", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    options = ["--steps", "4", "--updates", "20", "--every", "10", "--hidden", "4"]
    curves = module.main([*options, "--workers", "1", "--picture", ""])
    assert set(curves) == {(net, 4) for net in adding.NETS}
    assert "T=4    lstm" in capsys.readouterr().out
