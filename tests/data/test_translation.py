"""Pieces of words, BLEU, and Multi30k."""

from __future__ import annotations

import gzip
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from fastnn.data.multi30k import load_multi30k
from fastnn.data.subwords import Subwords, _joined, join_words, split_words
from fastnn.data.translation import bleu, chrf
from fastnn.errors import DataError, OptionError
from fastnn.tasks.tagger import words_of

TEXT = "low low low low low lower lower newest newest newest newest newest newest widest widest"


def test_pairs_are_learnt_by_frequency() -> None:
    """The first merges of Sennrich et al.'s example; equal ones in alphabetical order."""
    pieces = Subwords.learn(TEXT.split(), 4)
    assert pieces.merges == [("e", "s"), ("es", "t"), ("l", "o"), ("lo", "w")]
    assert pieces.split(["lowest"]) == ["low@@", "est"]


def test_pairs_are_joined_in_the_order_they_were_learnt_in() -> None:
    """The earliest pair first, wherever it stands; overlapping ones from the left."""
    pieces = Subwords([("b", "c"), ("a", "b"), ("a", "a"), ("aa", "a")])
    assert pieces.split(["abc", "ab", "aaaaa"]) == ["a@@", "bc", "ab", "aa@@", "aaa"]


def test_pieces_give_the_words_back() -> None:
    words = split_words("The man's T-shirt isn't blue; it costs 3.50!")
    for merges in (0, 3, 1000):
        pieces = Subwords.learn(TEXT.split() + words, merges)
        assert pieces.join(pieces.split(words)) == words
    assert join_words(words).startswith("the man's t-shirt isn't blue; it costs")


def test_any_word_comes_back_and_pairs_are_those_of_the_plain_way() -> None:
    """Words of the sign that marks pieces, and lines' ends, NUL, pairs: beside counting anew."""
    rng = random.Random(0)
    for merges in range(25):
        signs = rng.sample("@@ab\n\0é😀", 4)
        words = ["".join(rng.choices(signs, k=rng.randrange(1, 9))) for _ in range(12)]
        pieces = Subwords.learn(words, merges)
        assert pieces.join(pieces.split(words)) == words
        parts, want = [list(word) for word in words], []
        while len(want) < merges:
            counts = Counter(pair for part in parts for pair in pairwise(part))
            best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
            if best is None or counts[best] < 2:
                break
            want.append(best)
            parts = [_joined(part, best) for part in parts]
        assert pieces.merges == want


def test_pieces_are_saved(tmp_path: Any) -> None:
    pieces = Subwords.learn(TEXT.split(), 5)
    pieces.save(tmp_path / "pieces.json")
    assert Subwords.load(tmp_path / "pieces.json").merges == pieces.merges
    for text in ("{", "[1]", '[["a"]]', "3"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match="not a file of subwords"):
            Subwords.load(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("hypotheses", "references", "want"),
    [  # by sacrebleu 2.5
        (["the cat sat on the mat"], ["the cat is on the mat"], 37.99178428257963),
        (
            ['The 1,000-man "army" costs $3.50 &amp; more.', "a b"],
            ["The 1,000 man army costs $3.5 - more...", "a b c d"],
            11.838069430351284,
        ),
        (["x y z w"], ["a b c x"], 15.97357760615681),
        (  # longer than the references, a word too often, entities
            [
                "the the the cat sat there on the mat today",
                "he said &quot;no&quot; &amp; left , at 3-4 pm",
            ],
            ["the cat sat on the mat", 'he said "no" & left, at 3-4 pm'],
            70.94418773941479,
        ),
        (["a b"], ["c d"], 0.0),
        ([""], ["c d"], 0.0),
    ],
)
def test_bleu(hypotheses: list[str], references: list[str], want: float) -> None:
    assert bleu(hypotheses, references) == pytest.approx(want, rel=1e-12)


def test_bleu_without_case() -> None:
    assert bleu(["The Cat sat on it"], ["the cat sat on it"], lower=True) == pytest.approx(100.0)
    assert bleu(["The Cat sat on it"], ["the cat sat on it"]) < 100.0
    with pytest.raises(DataError, match="as many references as translations"):
        bleu(["a"], [])


@pytest.mark.parametrize(
    ("hypotheses", "references", "lower", "want"),
    [  # by sacrebleu 2.6
        (["the cat sat on the mat"], ["the cat is on the mat"], False, 64.5779420625287),
        (
            ["the cat sat on the mat", "A dog ."],
            ["the cat is on the mat", "a dog."], False, 62.984035724928425,
        ),
        (
            ["the cat sat on the mat", "A dog ."],
            ["the cat is on the mat", "a dog."], True, 67.96644642774889,
        ),
        (["ab"], ["abcdefgh"], False, 23.404255319148938),
        (["", "x"], ["abc", "xy"], False, 23.809523809523807),
        (["Zwei Männer"], ["zwei männer laufen"], True, 60.269395397874376),
        (["a"], ["b"], False, 0.0),
        (["x y"], ["xy"], False, 100.0),
        (["abcdefgh ij", "b"], ["abc", "bcd"], False, 43.78188378748288),
        # a reference shorter than some stretches beside one that has them
        (["abcdefgh", "the cat sat"], ["ab", "the cat sat down"], False, 65.79514623175193),
    ],
)  # fmt: skip
def test_chrf(hypotheses: list[str], references: list[str], lower: bool, want: float) -> None:
    assert chrf(hypotheses, references, lower=lower) == pytest.approx(want, rel=1e-12)


#: words of scripts with marks, which belong to the letters before them, and of others
SCRIPTS = [
    "मेरा", "नमस्ते", "ภาษาไทยที่", "שָׁלוֹם", "مَرْحَبًا", "می\u200cخواهم", "e\u0301te\u0301", "猫は",
    "Ελλάδα", "👩\u200d", "𑄌𑄋𑄴𑄟𑄳𑄦",
]  # fmt: skip


def test_words_of_any_script() -> None:
    text = ", ".join(SCRIPTS)
    assert split_words(text, lower=False)[::2] == SCRIPTS
    assert set(split_words(text)[1::2]) == {","}
    assert words_of(text)[::2] == SCRIPTS
    assert join_words(split_words(text, lower=False)) == text
    joined = "".join(f"\u0301{chr(sign)}" for sign in range(0x300, 0x370))
    assert split_words(f"a{joined} b") == [f"a{joined}", "b"]


def test_scores_take_lists_of_equal_length() -> None:
    with pytest.raises(DataError, match="chrf: expected as many references as translations"):
        chrf([], [])
    with pytest.raises(DataError, match="bleu: expected lists of translations and references"):
        bleu("a b", ["a b"])


def test_files_of_multi30k(tmp_path: Any) -> None:
    names = [f"{part}.{language}.gz" for part in ("train", "val", "test_2016_flickr")
             for language in ("en", "de", "fr")]  # fmt: skip
    for name in names:
        (tmp_path / name).write_bytes(gzip.compress(f"{name}\nGrün\u2028Blau\x0c\n".encode()))
    data = load_multi30k("de", "fr", folder=tmp_path)
    # a separator within a sentence ends no line, which would put the languages out of step
    second = "Grün\u2028Blau\x0c"
    assert data.valid == (["val.de.gz", second], ["val.fr.gz", second])
    with pytest.raises(OptionError, match="two different languages"):
        load_multi30k("en", "en", folder=tmp_path)
    (tmp_path / names[0]).write_bytes(gzip.compress(b"one\n"))
    with pytest.raises(DataError, match=r"as many lines in train\.en\.gz as in train\.de\.gz"):
        load_multi30k(folder=tmp_path)
    packed = bytearray(gzip.compress(b"one\n"))
    packed[10] ^= 0xFF  # the first of the compressed bytes
    for content in (b"one\n", bytes(packed)):
        (tmp_path / names[0]).write_bytes(content)
        with pytest.raises(DataError, match="not a gzip file"):
            load_multi30k(folder=tmp_path)


def test_translations_of_a_folder(tmp_path: Any) -> None:
    """Any two languages, packed or not, and no others are asked for."""
    for name in ("train.en", "valid.en", "test.en", "train.cy", "val.cy.gz", "test_2016_flickr.cy"):
        text = f"\ufeff{name}\r\n".encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    data = load_multi30k("en", "cy", folder=tmp_path)
    assert data.train == (["train.en"], ["train.cy"])
    assert data.valid == (["valid.en"], ["val.cy.gz"])
    assert data.test == (["test.en"], ["test_2016_flickr.cy"])
    with pytest.raises(
        DataError, match=r"expected train\.de or train\.de\.gz, a sentence a line; non"
    ):
        load_multi30k("en", "de", folder=tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        load_multi30k("en", "de", folder=tmp_path / "nowhere")
    with pytest.raises(OptionError, match="two different languages, as files' names end"):
        load_multi30k("en", "../de", folder=tmp_path)
    with pytest.raises(
        OptionError, match="two different languages of en, de, fr, got 'en' and 'cy'"
    ):
        load_multi30k("en", "cy")
