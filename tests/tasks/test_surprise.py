"""The loss of a language model word by word, and its picture."""

import math

import numpy as np
import pytest

from fastnn.data.text import Vocabulary
from fastnn.errors import DataError
from fastnn.tasks.language import EXACT, LanguageModel, mean_loss
from fastnn.tasks.surprise import by_frequency, draw_surprise, symbol_losses
from fastnn.tasks.transformer_lm import TransformerModel


def models(symbols):
    yield LanguageModel(symbols, embedding=4, hidden=6, layers=1, sampled=2, streams=3)
    yield TransformerModel(symbols, hidden=8, heads=2, layers=1, context=10, streams=3)


@pytest.mark.parametrize("length", [2, 11, 140])
def test_losses_are_those_whose_mean_is_measured(length):
    ids = np.random.default_rng(length).integers(0, 7, length)
    for model in models(7):
        found = symbol_losses(model, ids)
        assert found.shape == (length - 1,)
        wanted = mean_loss(model.with_streams(1), ids, EXACT, 1)
        assert found.mean() == pytest.approx(wanted, rel=1e-5)
        if length < 12 or isinstance(model, LanguageModel):  # what comes later changes nothing
            np.testing.assert_allclose(symbol_losses(model, ids[:2]), found[:1], rtol=1e-4)
        with pytest.raises(DataError, match="at least 2 symbols"):
            symbol_losses(model, ids[:1])


def test_words_by_frequency():
    counts = np.array([0, 1, 9, 10, 99, 100, 1000])
    losses, following = np.log([2.0, 3.0, 12.0, 8.0, 2.0, 5.0, 7.0]), np.arange(7)
    found = by_frequency(losses, following, counts)
    assert [row[:2] for row in found] == [(0, 1), (1, 2), (10, 2), (100, 1), (1000, 1)]
    assert [row[2] for row in found] == pytest.approx([2, 6, 4, 5, 7])


def test_the_picture_shows_them(tmp_path):
    model = next(models(3))
    train, text = np.repeat([0, 1, 2], [12, 4, 1]), np.array([0, 1, 0, 2, 1] * 5)
    words = Vocabulary(["the", "cat", "sat"])
    figure = draw_surprise(model, words, train, text, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    left, right = figure.axes
    losses = symbol_losses(model, text)
    rows = by_frequency(losses, text[1:], np.array([12, 4, 1]))
    assert [bar.get_height() for bar in left.patches] == [row[2] for row in rows]
    assert [t.get_text() for t in left.get_xticklabels()] == ["1 to 9", "10 to 99"]
    assert [t.get_text() for t in left.texts] == ["62 %", "38 %"]
    np.testing.assert_allclose([b.get_width() for b in right.patches], losses[:16] / math.log(2))
    assert [t.get_text() for t in right.get_yticklabels()] == words.decode(text[1:17])


def test_words_that_are_all_as_frequent(tmp_path):
    """One height alone: matplotlib would warn of limits that are equal."""
    words = Vocabulary(["the", "cat", "sat"])
    text = np.array([0, 1, 0, 1])
    figure = draw_surprise(next(models(3)), words, np.repeat([0, 1, 2], 4), text, tmp_path / "a")
    bottom, top = figure.axes[0].get_ylim()
    assert bottom < figure.axes[0].patches[0].get_height() < top
