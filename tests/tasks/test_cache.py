"""The cache of states against a loop over all places."""

import numpy as np
import pytest

from fastnn.errors import OptionError
from fastnn.tasks import cache, mixture
from fastnn.tasks.language import LanguageModel, mean_loss
from fastnn.tasks.transformer_lm import TransformerModel


def small():
    model = LanguageModel(5, embedding=4, hidden=6, layers=1, dropout=0.0, streams=2)
    for p in model.named_parameters().values():
        p.value = np.random.default_rng(p.size).standard_normal(p.shape)
    return model


@pytest.mark.parametrize(("size", "block"), [(1, 256), (4, 3), (500, 7)])
def test_the_mixture_is_that_of_a_loop_over_places(size, block, monkeypatch):
    monkeypatch.setattr(cache, "BLOCK", block)
    model, ids = small(), np.random.default_rng(0).integers(0, 5, 40)
    states, loss = mixture._read(model.with_streams(1), ids)
    total = 0.0
    for t in range(39):
        places = range(max(0, t - size), t)
        weights = [np.exp(0.7 * states[t] @ states[i]) for i in places]
        same = sum(w for w, i in zip(weights, places, strict=True) if ids[i + 1] == ids[t + 1])
        p = np.exp(-loss[t])
        if t:
            p = 0.6 * p + 0.4 * same / sum(weights)
        total -= np.log(p)
    found = cache.NeuralCache(size, theta=0.7, share=0.4).mean_loss(model, ids)
    assert found == pytest.approx(total / 39, rel=1e-9)


def test_without_a_share_it_is_the_model_alone():
    model, ids = small(), np.random.default_rng(1).integers(0, 5, 300)
    found = cache.NeuralCache(share=0.0).mean_loss(model, ids)
    assert found == pytest.approx(mean_loss(model.with_streams(1), ids, workers=1), rel=1e-5)


def test_words_that_come_again_become_likelier():
    model, ids = small(), np.array([0, 1, 0, 1, 0, 1] * 20)
    alone = cache.NeuralCache(share=0.0).mean_loss(model, ids)
    assert cache.NeuralCache(share=0.5).mean_loss(model, ids) < alone


def test_wrong_use_is_refused():
    with pytest.raises(OptionError, match=r"share in \[0, 1\]"):
        cache.NeuralCache(share=1.5)
    with pytest.raises(OptionError, match="size"):
        cache.NeuralCache(size=0)
    with pytest.raises(OptionError, match="got TransformerModel"):
        cache.NeuralCache().mean_loss(TransformerModel(5, hidden=4, heads=1), np.arange(5))
