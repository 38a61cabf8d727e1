"""Error rates, scores of translations and subwords, by our own code and by libraries."""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections import Counter

import jiwer
import pytest
import tokenizers

from fastnn import data
from fastnn.data.edits import LARGEST, edits
from fastnn.data.subwords import GOES_ON, Subwords
from fastnn.data.translation import bleu, chrf
from fastnn.errors import DataError, OptionError


def pairs(count: int, most: int) -> list[tuple[str, str]]:
    """Texts of few different signs: many alignments of the same cost."""
    rng = random.Random(most)
    return [
        tuple("".join(rng.choices("abcdé"[: 2 + k % 4], k=rng.randrange(most))) for _ in range(2))
        for k in range(count)
    ]


def distance(a: str, b: str) -> int:
    """Wagner and Fischer's table, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[:], i
        for j, y in enumerate(b, 1):
            row[j] = min(before[j - 1] + (x != y), before[j] + 1, row[j - 1] + 1)
    return row[-1]


@pytest.mark.parametrize("most", [4, 9, 140])
def test_edits_are_the_fewest_and_those_of_rapidfuzz(most):
    for a, b in pairs(400 if most < 100 else 40, most):
        own = edits(a, b, "own")
        assert own == edits(a, b, "rapidfuzz") == edits(list(a), list(b), "own")
        assert len(own) == distance(a, b)
        made, i = [], 0  # they make b of a
        for kind, k, j in own:
            made += a[i:k]
            made += [] if kind == "delete" else [b[j]]
            i = k + (kind != "insert")
        assert "".join(made) + a[i:] == b


def test_long_texts_are_not_divided():
    """Beyond some length rapidfuzz finds other alignments."""
    (a, b), size = pairs(1, 9)[0], 1400
    a, b = ("".join(random.Random(k).choices("ab", k=size)) for k in (1, 2))
    assert len(a) * len(b) > LARGEST
    assert edits(a, b, "own") == edits(a, b, "rapidfuzz") == edits(a, b)


def test_a_table_that_is_kept_in_parts(monkeypatch):
    given = pairs(60, 40)
    whole = [edits(a, b, "own") for a, b in given]
    monkeypatch.setattr("fastnn.data.edits.KEPT", 1)
    assert [edits(a, b, "own") for a, b in given] == whole
    # the rows between two that are kept take most: as many as the root of all
    a, b = ("".join(random.Random(k).choices("ab", k=3000)) for k in (1, 2))
    tracemalloc.start()
    edits(a, b, "own")
    assert tracemalloc.get_traced_memory()[1] < 3_000_000 / 4  # the whole table: 2.25 MB
    tracemalloc.stop()


def test_symbols_are_told_apart_by_what_they_are_not_by_hashes():
    for library in ("own", "rapidfuzz"):
        assert edits([-1, "a", (1,)], [-2, 97, (1,)], library) == [
            ("replace", 0, 0), ("replace", 1, 1),
        ]  # fmt: skip
        found = data.align_symbols(["a", (2,), "c"], ["b", "c"], library=library)
        assert [pair for pair in found if pair[0] == pair[1]] == [("c", "c")]


def test_error_rates_are_those_of_jiwer():
    rng = random.Random(0)
    texts = [
        [" ".join(rng.choices(["a", "bb", "a b", "ca"], k=rng.randrange(1, 8))) for _ in range(40)]
        for _ in range(2)
    ]
    for library in ("own", "rapidfuzz", "auto"):
        for rate, theirs in (
            (data.word_error_rate(*texts, library=library), jiwer.process_words(*texts)),
            (data.character_error_rate(*texts, library=library), jiwer.process_characters(*texts)),
        ):
            assert (rate.substitutions, rate.deletions, rate.insertions) == (
                theirs.substitutions, theirs.deletions, theirs.insertions,
            )  # fmt: skip
            assert rate.expected == theirs.hits + theirs.substitutions + theirs.deletions


def test_spaces_around_a_sentence_are_no_characters():
    for texts in ([" a b "], ["a c  "]), (["\ta"], ["b\n"]):
        theirs = jiwer.process_characters(*texts)
        rate = data.character_error_rate(*texts)
        assert rate.errors == theirs.substitutions == 1
        assert rate.expected == theirs.hits + theirs.substitutions


@pytest.mark.parametrize("wrong", [None, b"a", ["a", "b"], 1])
def test_what_is_no_string_is_refused(wrong):
    for score in (data.word_error_rate, data.character_error_rate, bleu, chrf):
        for given in ([wrong], ["a"]), (["a"], [wrong]):
            with pytest.raises(DataError, match=f"as strings, got {type(wrong).__name__}; "):
                score(*given)


def test_bleu_and_chrf_are_those_of_sacrebleu_to_the_bit():
    rng = random.Random(1)
    words = ["the", "cat", "a.", "3,5", "x-y", "&amp;", "Ä", "(", "1.5", "mat ,"]
    for _ in range(60):
        found, wanted = (
            [" ".join(rng.choices(words[s:], k=rng.randrange(s, 9))) for _ in range(4)]
            for s in (0, 1)
        )
        for score in (bleu, chrf):
            for lower in (False, True):
                own = score(found, wanted, lower=lower)
                assert own == score(found, wanted, lower=lower, library="sacrebleu")


def test_pairs_of_tokenizers_split_words_as_they_do_there():
    rng = random.Random(2)
    words = ["".join(rng.choices("abcdeü", k=rng.randrange(1, 9))) for _ in range(600)]
    pieces = Subwords.learn(words, 60, library="tokenizers")
    assert len(pieces) == 60
    assert pieces.merges == Subwords.learn(words, 60, library="auto").merges
    signs = sorted({sign for word in words for sign in word})
    symbols = dict.fromkeys([*signs, *(a + b for a, b in pieces.merges)])
    numbers = {symbol: k for k, symbol in enumerate(symbols)}
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(numbers, pieces.merges))
    for word in words:
        own = [piece.removesuffix(GOES_ON) for piece in pieces.split([word])]
        assert own == theirs.encode(word).tokens


def test_half_a_surrogate_pair():
    """tokenizers can't take one; our code can."""
    words = ["ab", "ab\ud800"] * 2
    with pytest.raises(DataError, match=r"got 'ab\\ud800' with half a surrogate pair; remove it"):
        Subwords.learn(words, 2, library="tokenizers")
    pieces = Subwords.learn(words, 2)
    assert pieces.join(pieces.split(words)) == words


def test_tokenizers_takes_the_most_frequent_pairs_as_our_code_does():
    """Where no two are equally frequent."""
    words = ["low"] * 50 + ["lower"] * 21 + ["newest"] * 60 + ["widest"] * 33
    for merges in (0, 1, 5):
        own, theirs = (
            Subwords.learn(words, merges, library=library).merges
            for library in ("own", "tokenizers")
        )
        assert Counter(own).keys() == Counter(theirs).keys()
        assert len(own) == merges
    # a pair that occurs once is none; where there are no more, there are fewer
    for library in ("own", "tokenizers"):
        assert Subwords.learn(["abc", "", "ab"], 9, library=library).merges == [("a", "b")]


def test_a_library_that_is_not_there(monkeypatch):
    for name in ("rapidfuzz.distance.Levenshtein", "sacrebleu", "tokenizers"):
        monkeypatch.setitem(sys.modules, name, None)
    assert data.word_error_rate(["a b"], ["a c"]).errors == 1
    assert bleu(["a b c d"], ["a b c d"], library="auto") == pytest.approx(100.0)
    assert Subwords.learn(["aa"] * 2, 1, library="auto").merges == [("a", "a")]
    remedy = r"needs {0}, which is not installed: pip install {0}, or take"
    with pytest.raises(ImportError, match=remedy.format("rapidfuzz")):
        data.align_symbols("a", "b", library="rapidfuzz")
    with pytest.raises(ImportError, match=remedy.format("sacrebleu")):
        chrf(["a"], ["a"], library="sacrebleu")
    with pytest.raises(ImportError, match=remedy.format("tokenizers")):
        Subwords.learn(["a"], 1, library="tokenizers")
    with pytest.raises(OptionError, match="library: expected 'sacrebleu', 'own' or 'auto', got 'n"):
        bleu(["a"], ["a"], library="nltk")
