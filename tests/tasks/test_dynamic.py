"""Dynamic evaluation against steps of SGD taken one by one."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import OptionError
from fastnn.tasks.dynamic import dynamic_loss
from fastnn.tasks.language import LanguageModel, mean_loss
from fastnn.tasks.transformer_lm import TransformerModel
from fastnn.train.stateful import reset_states


def small(**options):
    model = LanguageModel(5, embedding=4, hidden=6, layers=1, streams=2, **options)
    for p in model.named_parameters().values():
        p.value = np.random.default_rng(p.size).standard_normal(p.shape)
    return model


def test_each_piece_is_measured_before_it_is_learned():
    model = small(dropout=0.5, weight_drop=0.5, word_dropout=0.3)
    ids = np.random.default_rng(0).integers(0, 5, 15)  # 14 pairs: pieces of 4, 4, 4 and 2
    before = {k: np.array(p) for k, p in model.named_parameters().items()}
    other = small(dropout=0.0).with_streams(1)
    sgd = optim.SGD(lr=0.3, clip_global_norm=1.0)
    step = fnn.compile(other, nn.CrossEntropyLoss(), sgd, workers=1)
    reset_states(other)
    losses = [
        float(step(ids[None, k : min(k + 4, 14)], ids[None, k + 1 : min(k + 5, 15)]))
        for k in range(0, 14, 4)
    ]
    want = np.average(losses, weights=[4, 4, 4, 2])
    found = dynamic_loss(model, ids, lr=0.3, steps=4, workers=1)
    assert found == pytest.approx(want, rel=1e-5)
    for name, p in model.named_parameters().items():
        np.testing.assert_array_equal(p, before[name])


def test_a_rate_of_0_is_no_learning_and_another_one_learns_what_comes_again():
    model, ids = small(dropout=0.2), np.tile([0, 3, 1, 1, 4], 60)
    alone = mean_loss(model.with_streams(1), ids, workers=1)
    assert dynamic_loss(model, ids, lr=0.0, workers=1) == pytest.approx(alone, rel=1e-5)
    assert dynamic_loss(model, ids, lr=0.3, workers=1) < 0.7 * alone


def test_what_cannot_learn_is_refused():
    ids = np.arange(5)
    with pytest.raises(OptionError, match=r"expected a LanguageModel, .* got TransformerModel"):
        dynamic_loss(TransformerModel(5, hidden=8, heads=2, layers=1), ids)
    with pytest.raises(OptionError, match="a rate lr of 0 or more, got -1"):
        dynamic_loss(small(), ids, lr=-1)
    with pytest.raises(OptionError, match="steps"):
        dynamic_loss(small(), ids, steps=0)
