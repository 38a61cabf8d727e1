"""Reading the outputs of nets trained by connectionist temporal classification."""

import itertools
from collections import Counter

import numpy as np
import pytest

from fastnn import nn, ops, plot
from fastnn.data.ngram import Arcs, NGram
from fastnn.errors import DataError, OptionError, ShapeError
from tests import naive_ctc


def scores(seed, T, C=3, B=1):
    return 1.5 * np.random.default_rng(seed).standard_normal((B, T, C)).astype(np.float32)


def plain_search(y, beam):
    """Prefix beam search with a dictionary: prefixes and log p of paths that end with a blank, and
    with a label."""
    found = {(): (0.0, -np.inf)}
    for frame in y:
        after = {}

        def add(prefix, blank, other, after=after):
            had = after.get(prefix, (-np.inf, -np.inf))
            after[prefix] = np.logaddexp(had[0], blank), np.logaddexp(had[1], other)

        for prefix, (blank, other) in found.items():
            whole = np.logaddexp(blank, other)
            add(prefix, whole + frame[0], -np.inf)
            for c in range(1, len(frame)):
                again = prefix[-1:] == (c,)
                add((*prefix, c), -np.inf, (blank if again else whole) + frame[c])
                if again:
                    add(prefix, -np.inf, other + frame[c])
        kept = sorted(after, key=lambda p, after=after: -np.logaddexp(*after[p]))[:beam]
        found = {prefix: after[prefix] for prefix in kept}
    return [(list(prefix), np.logaddexp(*found[prefix])) for prefix in kept]


@pytest.mark.parametrize("beam", [1, 2, 3, 5])
def test_a_narrow_search_keeps_what_the_plain_one_keeps(beam):
    decoder = nn.CTCDecoder(["", "a", "b"], beam=beam, best=beam)
    x = scores(beam, 9, B=40)
    labels, counts, found = decoder.predict(x)
    for b, frames in enumerate(x.astype(np.float64)):
        y = frames - np.log(np.exp(frames).sum(-1, keepdims=True))
        for k, (prefix, score) in enumerate(plain_search(y, beam)):
            assert labels[b, k, : counts[b, k]].tolist() == prefix
            assert found[b, k] == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_the_search_finds_what_enumeration_finds(seed):
    x = scores(seed, 6 - seed % 3)
    want = naive_ctc.labellings(x[0].astype(np.float64))
    ranked = sorted(want, key=want.get, reverse=True)[:3]
    labels, counts, found = nn.CTCDecoder(["", "a", "b"], beam=40, best=3).predict(x)
    got = [tuple(row[:n]) for row, n in zip(labels[0], counts[0], strict=True)]
    assert got == ranked
    np.testing.assert_allclose(np.exp(found[0]), [want[r] for r in ranked], rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("words", [None, ["a", "ab", "b"]])
def test_the_search_with_words_and_a_model(seed, words):
    """All labellings, scored by the net, the model and the bonus."""
    x = scores(seed, 5, C=4)
    symbols, weight, bonus = ["", "a", "b", " "], 0.7, 0.3
    if words:
        model = NGram.train([["a", "b"], ["ab", "a"], ["b", "b"]], 2)
    else:
        model = NGram.train([list("ab a"), list("b"), list("ba")], 3)
    best, top, found = (), -np.inf, Counter()
    for labels, p in naive_ctc.labellings(x[0].astype(np.float64)).items():
        text = "".join(symbols[k] for k in labels)
        found[text[:-1] if words and text.endswith(" ") and text > " " else text] += p
    for text, p in found.items():
        tokens = text.split(" ") if words else list(text)
        if words and text and not set(tokens) <= set(words):
            continue
        tokens = tokens if text else []
        total = np.log(p) + bonus * len(tokens)
        for k, token in enumerate([*tokens, "</s>"]):
            before = ["<s>", *tokens[:k]]
            total += weight * model.score(token, before) * np.log(10)
        best, top = (text, total) if total > top else (best, top)
    decoder = nn.CTCDecoder(symbols, 200, words=words, model=model, weight=weight, bonus=bonus)
    assert decoder.text(x) == [best]
    np.testing.assert_allclose(decoder.predict(x)[2][0, 0], top, rtol=1e-4)


def test_a_word_that_the_model_does_not_know_is_its_unknown_word():
    """Also as what comes before: counts of "<unk>" are those of all such words."""
    model = NGram.train([["a", "<unk>", "a"], ["<unk>", "b"], ["a"]], 2)
    words, x = ["a", "b", "ab", "ba"], 2 * scores(7, 5, C=4)
    best, given = {}, Counter()
    for labels, p in naive_ctc.labellings(x[0].astype(np.float64)).items():
        text = "".join(["", "a", "b", " "][k] for k in labels)
        given[text.removesuffix(" ")] += p
    for text, p in given.items():
        tokens = text.split(" ")
        if set(tokens) <= set(words):
            known = [t if t in "ab" else "<unk>" for t in tokens]
            total = np.log(p)
            for k, token in enumerate([*known, "</s>"]):
                total += np.log(10) * model.score(token, ["<s>", *known[:k]])
                own = [*tokens, "</s>"][k]
                assert model.score(own, ["<s>", *tokens[:k]]) == model.score(
                    token, ["<s>", *known[:k]]
                )
            best[" ".join(tokens)] = total
    decoder = nn.CTCDecoder(["", "a", "b", " "], 400, best=50, words=words, model=model, weight=1.0)
    labels, counts, found = decoder.predict(x)
    got = {
        "".join(decoder.symbols[k] for k in row[:n]): s
        for row, n, s in zip(labels[0], counts[0], found[0], strict=True)
        if n > 0 and s > -1e29
    }
    assert not any(text.endswith(" ") for text in got)
    assert set(got) & {"ab", "ba b", "a ab"}
    for text, value in got.items():
        np.testing.assert_allclose(value, best[text], rtol=1e-4)


class Scores:
    """A model of symbols whose scores are no log-probabilities: 9 for "b", and -1 for the rest."""

    def arcs(self, tokens):
        values = np.array([9.0 if token == "b" else -1.0 for token in tokens])
        one = np.arange(len(tokens))
        none, zero = np.full(1, -1), np.zeros(1)
        return Arcs(np.array([0, len(tokens)]), one, values, 0 * one, none, zero)


@pytest.mark.parametrize("bonus", [0.0, -1.0])
def test_a_model_may_have_scores_above_zero(bonus):
    """A prefix is not left out before the model has been asked."""
    x = np.log([[[0.1, 0.8, 0.05, 0.05]]]).astype(np.float32)
    decoder = nn.CTCDecoder(["", "a", "b", "c"], 1, model=Scores(), weight=1.0, bonus=bonus)
    assert decoder.text(x) == ["b"]


def test_a_word_without_a_score_has_the_same_one_in_the_model_and_in_decoders(tmp_path):
    (tmp_path / "m.arpa").write_text(
        "\\data\\\nngram 1=2\n\n\\1-grams:\n-0.5\ta\n-0.5\t</s>\n\\end\\\n"
    )
    model = NGram.read(tmp_path / "m.arpa")
    x = np.array([[[0.0, 0.0, 60.0]]], np.float32)
    decoder = nn.CTCDecoder(["", "a", "b"], 9, best=3, model=model, weight=0.1)
    labels, _, found = decoder.predict(x)
    (score,) = found[0][labels[0, :, 0] == 2]
    np.testing.assert_allclose(
        score, 0.1 * np.log(10) * (model.score("b") + model.score("</s>")), rtol=1e-6
    )


def test_no_labelling_comes_twice():
    """A prefix that was dropped and comes back finds the longer ones that stayed."""
    rng, decoder = np.random.default_rng(0), nn.CTCDecoder(["", "a", "b"], 16, best=16)
    x = (0.3 * rng.standard_normal((60, 20, 3))).astype(np.float32)
    labels, counts, _ = decoder.predict(x)
    for rows, sizes in zip(labels, counts, strict=True):
        found = [tuple(row[:n]) for row, n in zip(rows, sizes, strict=True)]
        assert len(set(found)) == 16


def test_greedy():
    x = np.full((2, 7, 3), -5.0, np.float32)
    for t, c in enumerate([0, 1, 1, 0, 1, 2, 2]):
        x[:, t, c] = 5.0
    labels, counts = nn.CTCDecoder(["", "a", "b"], beam=0).predict(x, np.array([7, 3]))
    assert counts.tolist() == [3, 1]
    assert labels.tolist() == [[1, 1, 2, -1, -1, -1, -1], [1, -1, -1, -1, -1, -1, -1]]


def test_padding_and_neighbours_do_not_matter():
    x, lengths = scores(1, 12, B=3), np.array([12, 7, 0])
    decoder = nn.CTCDecoder(["", "a", "b"], beam=5, best=2)
    whole = decoder.predict(x, lengths)
    x[1, 7:], x[2] = 1e3, 1e3
    again = decoder.predict(x, lengths)
    alone = decoder.predict(x[1:2, :7].copy())
    for a, b, c in zip(whole, again, alone, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[1:2, :, :7] if a.ndim == 3 else a[1:2], c)
    assert whole[1][2].tolist() == [0, -1]


class Aligned(nn.Module):
    def forward(self, x, labels, lengths):
        return ops.ctc_align(x, labels, lengths)


@pytest.mark.parametrize(
    ("T", "labels"), [(1, [2]), (4, [1, 1]), (6, [1, 1]), (6, [1, 2]), (5, [2, 1, 1])]
)
def test_forced_alignment_is_the_best_of_all_paths(T, labels):
    paths = [p for p in itertools.product(range(3), repeat=T) if naive_ctc.collapsed(p) == labels]
    for seed in range(12):
        x = scores(seed, T)
        y = np.log(np.exp(x[0]) / np.exp(x[0]).sum(-1, keepdims=True))
        best = max(paths, key=lambda p, y=y: sum(y[t, c] for t, c in enumerate(p)))
        places, score = Aligned().predict(x, np.array([labels]), np.array([T]))
        assert [0 if k < 0 else labels[k] for k in places[0]] == list(best)
        assert np.all(np.diff(places[0][places[0] >= 0]) >= 0)
        np.testing.assert_allclose(score[0], sum(y[t, c] for t, c in enumerate(best)), rtol=1e-5)
    figure = plot.forced_alignment(np.exp(y), places[0], ["a", "b", "c"][: len(labels)])
    assert [t.get_text() for t in figure.axes[0].texts] == ["a", "b", "c"][: len(labels)]


def test_bad_input_is_refused_by_name():
    with pytest.raises(DataError, match=r"'the alignment' .* need 3: sequence 0.* inputs less$"):
        Aligned().predict(scores(0, 2), np.array([[1, 1]]), np.array([2]))
    with pytest.raises(OptionError, match="blank among 2 symbols"):
        nn.CTCDecoder(["", "a"], blank=2)
    with pytest.raises(OptionError, match="symbol ' '"):
        nn.CTCDecoder(["", "a"], words=["a"])
    with pytest.raises(OptionError, match="'ax' with"):
        nn.CTCDecoder(["", "a", " "], words=["ax"])
    with pytest.raises(OptionError, match="beam to be at most 10,000, got 10,001"):
        nn.CTCDecoder(["", "a"], 10_001)
    with pytest.raises(OptionError, match="need a beam"):
        nn.CTCDecoder(["", "a", " "], 0, words=["a"])
    with pytest.raises(OptionError, match="best in"):
        nn.CTCDecoder(["", "a", "b"], 4, best=5).predict(scores(0, 2))
    for beam, classes in ((0, 2), (0, 4), (4, 2), (4, 4)):
        with pytest.raises(ShapeError, match=f"logits of 3 classes.* got {classes}; give the symb"):
            nn.CTCDecoder(["", "a", "b"], beam).text(scores(0, 2, C=classes))
    with pytest.raises(ShapeError, match="a place for each step"):
        plot.forced_alignment(np.ones((3, 2)), [0, 0], ["a"])
