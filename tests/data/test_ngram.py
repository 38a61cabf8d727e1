"""N-gram models, error rates."""

import itertools

import numpy as np
import pytest

from fastnn.data.error_rates import align_symbols, character_error_rate, word_error_rate
from fastnn.data.ngram import NGram
from fastnn.errors import DataError, OptionError

TEXT = [s.split() for s in ("a b c", "a b b a", "c a b", "b c a b d", "a")]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_add_up_to_1(order):
    model = NGram.train(TEXT, order, vocabulary=["e"])
    words = ["a", "b", "c", "d", "e", "</s>", "<unk>"]
    for n in range(order + 1):
        for context in itertools.product(["<s>", "a", "b", "d", "zzz"], repeat=n):
            total = sum(10 ** model.score(w, context) for w in words)
            assert total == pytest.approx(1.0, rel=1e-9), context


def test_kneser_ney_by_hand():
    """Bigrams: <s> a 3, a b 2, a c 1, b </s> 2, c </s> 1; two occur once and two twice. Words that
    come after so many others: a 1, b 1, c 1, </s> 2."""
    model = NGram.train([["a", "b"], ["a", "c"], ["a", "b"]], 2)
    discount = 2 / (2 + 4)
    low = 3 / (3 + 2)
    p_b = (1 - low) / 5 + low * 4 / 5 / 5
    want = (2 - discount) / 3 + discount * 2 / 3 * p_b
    assert 10 ** model.score("b", ["a"]) == pytest.approx(want, rel=1e-9)


def test_files(tmp_path):
    model = NGram.train(TEXT, 3)
    model.write(tmp_path / "lm.arpa")
    again = NGram.read(tmp_path / "lm.arpa")
    assert again.order == 3
    assert again.perplexity(TEXT) == pytest.approx(model.perplexity(TEXT), rel=1e-5)
    text = (tmp_path / "lm.arpa").read_text()
    for damaged, message in (
        (text.replace("\\end\\", ""), "truncated"),
        (text.replace("\\2-grams:\n", "\\2-grams:\nx y z\n"), "expected a score, 2 words"),
        ("hello", "ARPA"),
        ("\\data\\\n\\2-grams:\n-1 a b\n\\end\\", "different 1-grams, got 0"),
        (text.replace("\\2-grams:\n", "\\2-grams:\nnan x y\n"), "finite numbers, got 'nan x y'"),
        (text.replace("ngram 2=13", "ngram 2=14"), "expected 14 different 2-grams, got 13"),
    ):
        (tmp_path / "bad.arpa").write_text(damaged)
        with pytest.raises(DataError, match=message):
            NGram.read(tmp_path / "bad.arpa")


def test_files_keep_every_word(tmp_path):
    """No sign parts words but the blank, which words can't have."""
    model = NGram.train([["a\u00a0b", "c\u2028", "\x85"]], 2)
    model.write(tmp_path / "lm.arpa")
    assert NGram.read(tmp_path / "lm.arpa").scores.keys() == model.scores.keys()
    for word in ("a b", "", "a\n"):
        with pytest.raises(DataError, match="expected words without"):
            NGram.train([[word]]).write(tmp_path / "lm.arpa")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_arcs_are_the_model(order):
    model = NGram.train(TEXT, order)
    tokens = ["a", "b", "c", "d", "zz", "</s>"]
    arcs = model.arcs(tokens)

    def walk(words):
        state, total = 0, 0.0
        for word in words:
            while True:
                span = range(arcs.first[state], arcs.first[state + 1])
                found = [k for k in span if arcs.tokens[k] == tokens.index(word)]
                if found:
                    break
                total += arcs.backoff_scores[state]
                state = arcs.backoff[state]
            total += arcs.scores[found[0]]
            state = arcs.following[found[0]]
        return total

    for words in (["a", "b", "</s>"], ["d", "d", "a", "b", "c"], ["b", "a", "a", "</s>"]):
        want = sum(model.score(w, ["<s>", *words[:k]]) for k, w in enumerate(words))
        assert walk(words) == pytest.approx(want * np.log(10), rel=1e-9)


def test_bad_input():
    with pytest.raises(DataError, match="lists of words"):
        NGram.train(["a b"])
    with pytest.raises(DataError, match="at least one sentence"):
        NGram.train([])
    with pytest.raises(OptionError, match="order"):
        NGram.train(TEXT, 0)
    for word in ("<s>", "</s>"):
        with pytest.raises(
            DataError, match=f"which begin and end each, got '{word}' in one; leave"
        ):
            NGram.train([["a"], ["b", word]])


@pytest.mark.parametrize("order", [1, 2, 5, 9])
def test_every_ngram_is_there_once(order):
    """Also where no sentence is as long, some are empty, and words repeat."""
    sentences = [*TEXT, [], ["a"] * 6, ["\U0001f600", "a"]]
    model = NGram.train(iter(sentences), order, ["e", "a"])
    want = {("<unk>",), ("e",)}
    for sentence in sentences:
        words = ("<s>", *sentence, "</s>")
        want |= {words[i : i + n] for n in range(1, order + 1) for i in range(len(words) - n + 1)}
    assert model.scores.keys() == want
    assert model.backoffs.keys() == {gram[:-1] for gram in want if len(gram) > 1}


def test_error_rates():
    rate = word_error_rate(["six two four", "yes"], ["six to for you", ""])
    assert (rate.substitutions, rate.deletions, rate.insertions, rate.expected) == (2, 1, 1, 4)
    assert rate.rate == 1.0
    rate = word_error_rate(["a b c d e"], ["a x e"])
    assert (rate.substitutions, rate.deletions, rate.insertions) == (1, 2, 0)
    assert character_error_rate(["abc"], ["abd"]).rate == pytest.approx(1 / 3)
    assert align_symbols("abc", "xbcd") == [("a", "x"), ("b", "b"), ("c", "c"), (None, "d")]
    with pytest.raises(DataError, match="as many"):
        word_error_rate(["a"], [])
    with pytest.raises(DataError, match="got a string"):
        word_error_rate("a", "a")
    with pytest.raises(DataError, match="at least one symbol"):
        word_error_rate([""], ["a"])
