"""What models of many lengths give, what they refuse, and what users write themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import DataError
from tests.train.sizes.tagger import (
    IGNORED,
    LENGTHS,
    TAGS,
    WORDS,
    Tagger,
    batch,
    fits,
    numbers,
    same,
    trainer,
)

# ---------------------------------------------------------------- outputs, and what is refused


def test_outputs_have_the_steps_that_were_given(exact):
    """Rows past a sequence's end are those of exact lengths, too; steps may be merged with rows."""

    class Several(Tagger):
        def forward(self, ids: Any, lengths: Any) -> Any:
            y, (last,) = self.cell(self.vectors(ids), lengths=lengths)
            rows = ops.reshape(self.head(y), -1, TAGS)
            return {"y": y, "rows": rows, "last": last[0], "ids": ids, "lengths": lengths}

    model, other = Several(), Several()
    other.load_state_dict(model.state_dict())
    data = [batch(n, 7)[0] for n in LENGTHS]
    found = [model.predict(*x, batch_size=3) for x in data]
    exact()
    assert same(found, [other.predict(*x, batch_size=3) for x in data])
    assert [f["y"].shape for f in found] == [(7, n, 8) for n in LENGTHS]
    assert [f["rows"].shape for f in found] == [(7 * n, TAGS) for n in LENGTHS]


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("wrong", [10, -1])
def test_lengths_past_the_steps_are_refused(few, wrong):
    model = Tagger()
    made, step = trainer(model), fnn.compile(model, nn.CrossEntropyLoss(ignore_index=IGNORED))
    for x, y in [batch(12)] if few else []:
        model.predict(*x), made.fit([(x, y)], verbose=False), made.evaluate([(x, y)])
        step(x, y), step.evaluate(x, y), step.gradients(x, y)
    (ids, lengths), y = batch(9)
    lengths[2] = wrong
    x = (ids, lengths)
    message = rf"inputs: 'cell' expects lengths in 0..9, the steps of its sequences, got {wrong};"
    for use in (
        lambda: model.predict(*x), lambda: made.fit([(x, y)], verbose=False),
        lambda: made.fit(x, y, verbose=False), lambda: made.evaluate([(x, y)]),
        lambda: made.evaluate(x, y), lambda: step(x, y), lambda: step.evaluate(x, y),
        lambda: step.gradients(x, y),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            use()


def test_lengths_of_a_loop_are_checked_too():
    class Sum(nn.Module):
        def forward(self, x: Any, lengths: Any) -> Any:
            return ops.loop(lambda x, s: (s + x, s + x), x, ops.zeros_state(x, 2), lengths)[0]

    with pytest.raises(DataError, match=r"lengths in 0..3, .* got 4"):
        Sum().predict(np.ones((2, 3, 2)), np.array([4, 1]))


# ---------------------------------------------------------------- what users write themselves


class Short(Tagger):
    """Has a limit of its own, within a range of lengths, and says so in its own words."""

    def forward(self, ids: Any, lengths: Any) -> Any:
        if ids.shape[1] > 13:
            raise ValueError("sentences of at most 13 words")
        return super().forward(ids, lengths)


def test_what_a_model_says_of_longer_sequences_concerns_them_alone(exact):
    data, found = [batch(n) for n in (3, 4, 5, 6, 9, 11, 13, 7)], []
    for _ in range(2):
        model = Short()
        made, logs = fits(model, data)
        with pytest.raises(ValueError, match="at most 13 words"):
            made.fit([batch(14)], verbose=False)
        found.append((logs, [model.predict(*x) for x, _ in data]))
        exact()
    assert same(*found)


class Noise(fnn.callbacks.Callback):
    """Writes to the arrays that training reads: before each epoch, or before each batch."""

    def __init__(self, array: np.ndarray, each_batch: bool):
        self.array = array
        self.rng = np.random.default_rng(0)
        setattr(self, "on_train_batch_begin" if each_batch else "on_epoch_begin", self.write)

    def write(self, *_: Any) -> None:
        self.array[:] = self.rng.integers(0, WORDS, self.array.shape)


@pytest.mark.parametrize("each_batch", [False, True])
def test_arrays_are_read_where_they_lie(each_batch, exact):
    found = []
    for _ in range(2):
        (ids, lengths), tags = batch(11, 20)
        made = trainer(Tagger())
        noise = Noise(ids, each_batch)
        logs = made.fit(
            (ids, lengths), tags, epochs=3, batch_size=8, callbacks=noise, verbose=False
        )
        found.append((numbers(logs), made.predict((ids, lengths))))
        exact()
    assert same(*found)


@pytest.mark.parametrize("name", ["ids", "lengths", "tags"])
def test_what_is_written_to_arrays_is_checked(name):
    """A number out of range would be an address out of the table."""
    (ids, lengths), tags = batch(11)
    array, wrong = {"ids": (ids, 10**12), "lengths": (lengths, 12), "tags": (tags, TAGS)}[name]
    worse = fnn.callbacks.LambdaCallback(on_epoch_end=lambda *_: array.fill(wrong))
    with pytest.raises(DataError, match=rf"expect.*, got {wrong};"):
        trainer(Tagger()).fit((ids, lengths), tags, epochs=3, callbacks=worse, verbose=False)
