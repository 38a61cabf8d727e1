"""Questions about small stories, whose answers take one fact or two: a memory of keys and values.

A story says where people are, and who has which thing, in any order. "Where is the ball?" takes two
facts, who has it and where they are; "where is Mary?" takes one. Weston et al., "Towards
AI-complete question answering", 2015, tasks 1 and 2, as facts with a subject (the key) and an
object (the value); Miller et al., "Key-value memory networks", EMNLP 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastnn import nn, optim
from fastnn.errors import check_whole
from fastnn.graph.value import Value
from fastnn.train.history import History
from fastnn.train.hooks import Callback
from fastnn.train.trainer import Trainer

PEOPLE = ("Mary", "John", "Sandra", "Daniel", "Bill", "Fred")
THINGS = ("ball", "book", "apple", "lamp", "key", "cup")
PLACES = ("kitchen", "garden", "office", "hall", "attic", "cellar", "bathroom", "bedroom")
SYMBOLS = (*PEOPLE, *THINGS, *PLACES)


class Stories(NamedTuple):
    """Stories as numbers of `SYMBOLS`, with a question each.

    Attributes:
        questions: who or what is asked for, integers (stories,).
        keys, values: subjects and objects of the facts, integers (stories, facts), padded with 0.
        lengths: how many facts each has, integers (stories,).
        answers: the place, as a number of `PLACES`, integers (stories,).
    """

    questions: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    lengths: np.ndarray
    answers: np.ndarray


def make(stories: int, random: np.random.Generator) -> Stories:
    """Random stories of two to six people and one to six things; half of the questions are about
    things.

    >>> found = make(1, np.random.default_rng(0))
    >>> found.keys.shape, str(found)[:5]
    ((1, 12), 'Stori')
    """
    check_whole("make", 1, stories=stories)
    most, first = len(PEOPLE) + len(THINGS), len(PEOPLE) + len(THINGS)
    keys, values = np.zeros((2, stories, most), np.int64)
    questions, lengths, answers = np.zeros((3, stories), np.int64)
    for k in range(stories):
        people = random.permutation(len(PEOPLE))[: random.integers(2, len(PEOPLE) + 1)]
        things = random.permutation(len(THINGS))[: random.integers(1, len(THINGS) + 1)]
        places = random.integers(0, len(PLACES), len(people))
        holders = random.integers(0, len(people), len(things))
        facts = [(person, first + place) for person, place in zip(people, places, strict=True)]
        facts += [
            (len(PEOPLE) + thing, people[holder])
            for thing, holder in zip(things, holders, strict=True)
        ]
        lengths[k] = len(facts)
        order = random.permutation(len(facts))
        keys[k, : len(facts)], values[k, : len(facts)] = np.array(facts)[order].T
        if random.random() < 0.5:
            one = random.integers(0, len(things))
            questions[k], answers[k] = len(PEOPLE) + things[one], places[holders[one]]
        else:
            one = random.integers(0, len(people))
            questions[k], answers[k] = people[one], places[one]
    return Stories(questions, keys, values, lengths, answers)


def text(found: Stories, story: int) -> str:
    """A story, its question and the answer in words."""
    lines = []
    for k in range(found.lengths[story]):
        key, value = SYMBOLS[found.keys[story, k]], SYMBOLS[found.values[story, k]]
        lines.append(f"{key} is in the {value}." if key in PEOPLE else f"{value} has the {key}.")
    asked = SYMBOLS[found.questions[story]]
    asked = asked if asked in PEOPLE else f"the {asked}"
    return " ".join([*lines, f"Where is {asked}?", f"{PLACES[found.answers[story]]}"])


class FreshStories:
    """Mini-batches of stories that are never seen again; they follow from seed and epoch."""

    def __init__(self, batch_size: int, count: int, seed: int = 0):
        self.batch_size, self.count, self.seed, self.epoch = batch_size, count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the mini-batches of this epoch; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        random = np.random.default_rng([self.seed, self.epoch])
        for _ in range(self.count):
            found = make(self.batch_size, random)
            yield found[:4], found.answers


class QuestionNet(nn.Module):
    """Vectors of symbols, a memory of keys and values, and the scores of the places.

    Args:
        size: numbers of a vector. hops: see `nn.KeyValueMemory`.

    Inputs: questions, keys, values and lengths, as `Stories` has them; output: (batch, places).
    """

    def __init__(self, size: int = 32, hops: int = 2):
        small = nn.init.get("normal", std=0.3)  # large ones choose a fact before they know which
        self.asked, self.keys, self.values = (
            nn.Embedding(len(SYMBOLS), size, weight_init=small) for _ in range(3)
        )
        self.recall = nn.KeyValueMemory(size, hops=hops)
        self.answer = nn.Linear(size, len(PLACES))

    def forward(self, questions: Value, keys: Value, values: Value, lengths: Value) -> Value:
        found, _ = self.recall(self.asked(questions), self.keys(keys), self.values(values), lengths)
        result: Value = self.answer(found)
        return result


def train_questions(
    hops: int = 2,
    *,
    size: int = 32,
    batches: int = 200,
    batch_size: int = 32,
    epochs: int = 3,
    lr: float = 5e-3,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: str = "auto",
    workers: int | str = "auto",
    verbose: bool = True,
) -> tuple[Trainer, History, dict[str, float]]:
    """Train on fresh stories with Adam, the gradient cut to a norm of 5.

    Args:
        hops, size: see `QuestionNet`.
        batches: mini-batches of an epoch.
        batch_size, epochs, lr, callbacks, seed, device, workers, verbose: see `Trainer`.

    Returns the trainer, the history, and the share of right answers of 1,000 other stories that
    take "one fact" and "two facts".
    """
    check_whole("train_questions", 1, batches=batches, batch_size=batch_size)
    trainer = Trainer(
        QuestionNet(size, hops), "cross_entropy", optim.Adam(lr=lr, clip_global_norm=5.0),
        metrics=["accuracy"], device=device, workers=workers, seed=seed,
    )  # fmt: skip
    other = make(1000, np.random.default_rng([seed, 10**6]))
    history = trainer.fit(
        FreshStories(batch_size, batches, seed), epochs=epochs, callbacks=callbacks,
        validation=(other[:4], other.answers), batch_size=100, verbose=verbose,
    )  # fmt: skip
    right = trainer.model.predict(*other[:4]).argmax(axis=1) == other.answers
    two = other.questions >= len(PEOPLE)
    return trainer, history, {
        "one fact": float(right[~two].mean()), "two facts": float(right[two].mean())
    }  # fmt: skip
