"""Questions about stories: that the answers are right, and that two facts take several hops."""

import numpy as np
import pytest

from fastnn.errors import OptionError
from fastnn.tasks import questions


def test_answers_follow_from_the_facts():
    found, asked = questions.make(200, np.random.default_rng(0)), set()
    people, first = len(questions.PEOPLE), len(questions.PEOPLE) + len(questions.THINGS)
    for k in range(200):
        length = found.lengths[k]
        facts = dict(zip(found.keys[k, :length], found.values[k, :length], strict=True))
        assert len(facts) == length
        assert not found.keys[k, length:].any()
        at, hops = found.questions[k], 0
        while at < first:
            at, hops = facts[at], hops + 1
        assert at - first == found.answers[k]
        assert hops == (1 if found.questions[k] < people else 2)
        asked.add(hops)
    assert asked == {1, 2}
    assert set(found.answers) == set(range(len(questions.PLACES)))


def test_words():
    found = questions.Stories(
        np.array([6]), np.array([[6, 1]]), np.array([[1, 13]]), np.array([2]), np.array([1])
    )
    assert questions.text(found, 0) == (
        "John has the ball. John is in the garden. Where is the ball? garden"
    )


def test_batches_follow_from_seed_and_epoch():
    def first(epoch, seed=0):
        batches = questions.FreshStories(4, 2, seed)
        batches.set_epoch(epoch)
        return next(iter(batches))[0][1]

    np.testing.assert_array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))
    assert not np.array_equal(first(1), first(1, seed=1))


def test_two_facts_take_several_hops():
    right = {}
    for hops, epochs in ((1, 2), (2, 2)):
        _, history, right[hops] = questions.train_questions(
            hops, epochs=epochs, workers=1, verbose=False
        )
        assert history["loss"][-1] < history["loss"][0]
    assert right[2]["two facts"] > 0.8
    assert right[2]["one fact"] > 0.9
    assert right[1]["two facts"] < 0.6


def test_mistakes():
    with pytest.raises(OptionError, match="batches"):
        questions.train_questions(batches=0)
    with pytest.raises(OptionError, match="stories"):
        questions.make(0, np.random.default_rng(0))
