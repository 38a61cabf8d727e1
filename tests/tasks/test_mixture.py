"""A language model mixed with n-grams and a cache, against a loop over the text."""

import numpy as np
import pytest

from fastnn.data import NGram
from fastnn.data.text import Vocabulary
from fastnn.errors import DataError, OptionError
from fastnn.tasks.cache import NeuralCache
from fastnn.tasks.language import mean_loss
from fastnn.tasks.mixture import NGramBeside, _read, mixed_loss
from fastnn.tasks.transformer_lm import TransformerModel
from tests.tasks.test_cache import small

SYMBOLS = Vocabulary("abcde")
TEXT = np.random.default_rng(0).integers(0, 5, 300)


def test_the_mixture_is_that_of_a_loop_over_places():
    model, ids = small(), TEXT[:40]
    ngram = NGram.train([SYMBOLS.decode(TEXT)], 3, "abcde")
    loss = _read(model.with_streams(1), ids)[1]
    written, total = SYMBOLS.decode(ids), 0.0
    for t in range(1, 40):
        counted = 10.0 ** ngram.score(written[t], written[:t])
        total -= np.log(0.7 * np.exp(-loss[t - 1]) + 0.3 * counted)
    beside = NGramBeside.train(TEXT, SYMBOLS, 3, share=0.3)
    assert mixed_loss(model, ids, beside) == pytest.approx(total / 39, rel=1e-9)


def test_what_ngrams_say_is_a_distribution_and_reads_only_the_past():
    beside = NGramBeside.train(TEXT, SYMBOLS, 3)
    each = []
    for last in range(5):
        ids = np.append(TEXT[:9], last)
        each.append(beside.probabilities(None, ids))
    assert all((p[:8] == each[0][:8]).all() for p in each)
    # the rest is for the end of a sentence and for unknown symbols
    assert 0.97 < sum(p[8] for p in each) < 1.0


def test_two_beside_it_share_with_the_model():
    model, ids = small(), TEXT[:40]
    cache, counted = NeuralCache(9, share=0.2), NGramBeside.train(TEXT, SYMBOLS, 2, share=0.3)
    states, loss = _read(model.with_streams(1), ids)
    said = [b.probabilities(states, ids) for b in (cache, counted)]
    own = np.full(39, 0.5)
    own[0], said[0][0] = 0.7, 0.0
    expected = -np.log(own * np.exp(-loss) + 0.2 * said[0] + 0.3 * said[1]).mean()
    assert mixed_loss(model, ids, cache, counted) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(OptionError, match=r"at most 1 together, got 1\.2"):
        mixed_loss(model, ids, NeuralCache(9, share=0.9), counted)


def test_alone_it_is_the_model():
    model = small()
    found = mean_loss(model.with_streams(1), TEXT, workers=1)
    assert mixed_loss(model, TEXT) == pytest.approx(found, rel=1e-5)
    none = NGramBeside.train(TEXT, SYMBOLS, 2, share=0.0)
    assert mixed_loss(model, TEXT, none) == pytest.approx(found, rel=1e-5)


def test_wrong_use_is_refused():
    with pytest.raises(OptionError, match=r"share in \[0, 1\]"):
        NGramBeside.train(TEXT, SYMBOLS, 2, share=-0.1)
    with pytest.raises(OptionError, match="order"):
        NGramBeside.train(TEXT, SYMBOLS, 0)
    with pytest.raises(DataError, match="without '<s>'"):
        NGramBeside.train([0, 1], Vocabulary(["a", "<s>"]), 2)
    beside = NGramBeside.train(TEXT, SYMBOLS, 2)
    with pytest.raises(OptionError, match=r"NGramBeside: .* got TransformerModel"):
        mixed_loss(TransformerModel(5, hidden=4, heads=1), TEXT, beside)
    with pytest.raises(DataError, match="at least 2 symbols, got 1"):
        mixed_loss(small(), TEXT[:1])
    for wrong in ([0, 1, 5], [0, 1, -1], [0, 5, 1]):
        with pytest.raises(DataError, match=r"ids in 0\.\.4, .* got"):
            mixed_loss(small(), np.array(wrong), NeuralCache(9))
    other = NGramBeside.train([0, 1, 6], Vocabulary("abcdefg"), 2)
    with pytest.raises(DataError, match="n-grams of the model's 5 symbols, got a vocabulary of 7"):
        mixed_loss(small(), TEXT, other)
    with pytest.raises(OptionError, match=r"got NGram; NGramBeside\(ngram, vocabulary\)"):
        mixed_loss(small(), TEXT, beside.ngram)
    with pytest.raises(DataError, match="at least 1 symbol, got none"):
        NGramBeside.train([], SYMBOLS, 2)


def test_what_nobody_thinks_possible_costs_infinity():
    assert mixed_loss(small(), TEXT, NeuralCache(2, share=1.0)) == np.inf
