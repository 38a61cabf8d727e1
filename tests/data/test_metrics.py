"""Entity F1 by the rules of the CoNLL evaluation script."""

import doctest
import random

import pytest

from fastnn.data import conll2003, metrics
from fastnn.data.conll2003 import convert_tags
from fastnn.data.metrics import entities, entity_scores
from fastnn.errors import DataError, OptionError


def by_the_tables(tags):
    """The script's own way: tables of neighbouring tags that end and that start a chunk.

    Pairs are (tag before, tag); besides these pairs, a change of type ends and starts one.
    """
    ends = {"BB", "BS", "BO", "IB", "IS", "IO", "EB", "EI", "EE", "ES", "EO", "SB", "SI", "SE",
            "SS", "SO"}  # fmt: skip
    starts = {"BB", "IB", "EB", "SB", "OB", "BS", "IS", "ES", "SS", "OS", "EE", "EI", "SE", "SI",
              "OE", "OI"}  # fmt: skip
    found, start, before, type_before = [], None, "O", ""
    for k, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        changed = kind != type_before
        if before + prefix in ends or (before != "O" and changed):
            found.append((type_before, start, k))
        if before + prefix in starts or (prefix != "O" and changed):
            start = k
        before, type_before = prefix, kind
    return found


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-X", [("X", 0, 1)]),
        ("I-X", [("X", 0, 1)]),
        ("O I-X I-X O", [("X", 1, 3)]),  # I- after O begins one
        ("B-X I-X B-X I-X", [("X", 0, 2), ("X", 2, 4)]),
        ("I-X I-X B-X I-X", [("X", 0, 2), ("X", 2, 4)]),  # IOB1
        ("B-X I-Y I-Y", [("X", 0, 1), ("Y", 1, 3)]),  # the type changes
        ("I-X I-Y I-X", [("X", 0, 1), ("Y", 1, 2), ("X", 2, 3)]),
        ("B-X O I-X", [("X", 0, 1), ("X", 2, 3)]),
        ("B-X B-Y B-X", [("X", 0, 1), ("Y", 1, 2), ("X", 2, 3)]),
        ("S-X S-X", [("X", 0, 1), ("X", 1, 2)]),
        ("B-X I-X E-X S-Y", [("X", 0, 3), ("Y", 3, 4)]),
        ("B-X E-X E-X I-X", [("X", 0, 2), ("X", 2, 3), ("X", 3, 4)]),
        ("S-X I-X E-X", [("X", 0, 1), ("X", 1, 3)]),
        ("S-X E-X", [("X", 0, 1), ("X", 1, 2)]),
        ("B-X E-Y", [("X", 0, 1), ("Y", 1, 2)]),
        ("O E-X O", [("X", 1, 2)]),
        ("I-X S-X I-X", [("X", 0, 1), ("X", 1, 2), ("X", 2, 3)]),
        ("B I O B", [("", 0, 2), ("", 3, 4)]),
        ("B-A-B I-A-B", [("A-B", 0, 2)]),
    ],
)
def test_entities(tags, expected):
    assert entities(tags.split()) == expected
    assert by_the_tables(tags.split()) == expected


def random_tags(rng, prefixes, most=12):
    tags = [f"{p}-{t}" for p in prefixes for t in "XY"] + ["O"] * len(prefixes)
    return rng.choices(tags, k=rng.randrange(most))


def test_entities_of_random_tags():
    rng = random.Random(0)
    for _ in range(3000):
        tags = random_tags(rng, "BIES")
        assert entities(tags) == by_the_tables(tags)


@pytest.mark.parametrize("tag", ["", "X", "b-PER", "O-PER", "PER", "BB-PER"])
def test_no_tag(tag):
    with pytest.raises(DataError, match="expected tags like O, B-PER"):
        entities(["O", tag])


def test_scores_by_hand():
    expected = [
        ["B-PER", "I-PER", "O", "B-LOC"],
        ["O", "B-ORG", "I-ORG", "I-ORG"],
        ["B-LOC", "O", "B-PER", "O"],
    ]
    found = [
        ["B-PER", "I-PER", "O", "B-ORG"],  # right; wrong type
        ["O", "B-ORG", "I-ORG", "O"],  # wrong end
        ["B-LOC", "O", "O", "I-PER"],  # right; missed; invented
    ]
    scores = entity_scores(expected, found)
    assert (scores.expected, scores.found, scores.correct) == (5, 5, 2)
    assert scores.precision == scores.recall == scores.f1 == pytest.approx(2 / 5)
    assert scores.accuracy == pytest.approx(8 / 12)
    assert list(scores.types) == ["LOC", "ORG", "PER"]
    counts = {k: (s.expected, s.found, s.correct) for k, s in scores.types.items()}
    assert counts == {"LOC": (2, 1, 1), "ORG": (1, 2, 0), "PER": (2, 2, 1)}
    assert scores.types["LOC"].precision == 1
    assert scores.types["LOC"].recall == pytest.approx(1 / 2)
    assert scores.types["LOC"].f1 == pytest.approx(2 / 3)
    assert scores.types["ORG"].f1 == 0
    table = str(scores).splitlines()
    assert table[1].split() == ["overall", "40.00", "40.00", "40.00", "5"]
    assert table[2].split() == ["LOC", "100.00", "50.00", "66.67", "2"]


def test_an_entity_ends_with_its_sentence():
    scores = entity_scores([["B-X"], ["I-X"]], [["B-X"], ["B-X"]])
    assert (scores.expected, scores.found, scores.correct) == (2, 2, 2)
    assert scores.accuracy == 0.5


@pytest.mark.parametrize("found", [["O"], ["B-X"]])
@pytest.mark.parametrize("expected", [["O"], ["B-X"]])
def test_without_entities_nothing_is_divided_by_zero(expected, found):
    scores = entity_scores([expected], [found])
    both = expected == found == ["B-X"]
    assert scores.precision == scores.recall == scores.f1 == (1 if both else 0)


def test_empty():
    scores = entity_scores([], [])
    assert (scores.f1, scores.accuracy, scores.types) == (0, 0, {})


def test_lengths_must_match():
    with pytest.raises(DataError, match="expected predictions for 2 sentences, got 1"):
        entity_scores([["O"], ["O"]], [["O"]])
    with pytest.raises(DataError, match="sentence 1: expected 2 predicted tags, got 1"):
        entity_scores([["O"], ["O", "O"]], [["O"], ["O"]])


@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
@pytest.mark.filterwarnings("ignore")  # its own, on divisions by zero
def test_against_seqeval(prefixes):
    peer = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    rng = random.Random(1)
    for _ in range(50):
        expected = [random_tags(rng, prefixes, 9) for _ in range(8)]
        expected.append(["B-X"])
        found = [[rng.choice([tag, "O", "I-X", "B-Y"]) for tag in tags] for tags in expected]
        found[-1] = ["B-X"]
        scores = entity_scores(expected, found)
        assert scores.precision == pytest.approx(peer.precision_score(expected, found))
        assert scores.recall == pytest.approx(peer.recall_score(expected, found))
        assert scores.f1 == pytest.approx(peer.f1_score(expected, found))
        assert scores.accuracy == pytest.approx(peer.accuracy_score(expected, found))
        report = peer.classification_report(expected, found, output_dict=True)
        for kind, of_type in scores.types.items():
            assert of_type.f1 == pytest.approx(report[kind]["f1-score"])
            assert of_type.expected == report[kind]["support"]


IOB1 = "I-X I-X B-X I-Y O I-Y O B-Y"
IOB2 = "B-X I-X B-X B-Y O B-Y O B-Y"
IOBES = "B-X E-X S-X S-Y O S-Y O S-Y"


@pytest.mark.parametrize("tags", [IOB1, IOB2, IOBES])
def test_schemes(tags):
    assert convert_tags(tags.split(), "IOB2") == IOB2.split()
    assert convert_tags(tags.split(), "IOBES") == IOBES.split()
    # the lone B-Y at the end is none in IOB1
    assert convert_tags(tags.split(), "IOB1") == [*IOB1.split()[:-1], "I-Y"]


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOBES"])
def test_conversion_keeps_the_entities(scheme):
    rng = random.Random(2)
    for _ in range(1000):
        tags = random_tags(rng, "BIES")
        converted = convert_tags(tags, scheme)
        assert entities(converted) == entities(tags)
        assert [t == "O" for t in converted] == [t == "O" for t in tags]


def test_unknown_scheme():
    with pytest.raises(OptionError, match="expected one of IOB1, IOB2, IOBES, got 'BIO'"):
        convert_tags(["O"], "BIO")


def test_examples():
    result = doctest.testmod(metrics)
    assert result.attempted > 0
    assert result.failed == 0
    example = doctest.DocTestFinder().find(conll2003.convert_tags, "convert_tags")[0]
    assert doctest.DocTestRunner().run(example).failed == 0
