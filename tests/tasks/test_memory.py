"""Copying, recall and sorting: their data, that bits are counted well, that nets learn."""

import json

import numpy as np
import pytest

from fastnn.errors import DataError, OptionError
from fastnn.tasks import memory
from tests.tasks.foreign import refused


def test_copies_stand_after_the_end():
    found = memory.make("copy", [3, 1], np.random.default_rng(0), 4)
    assert found.x.shape == (2, 10, 10)
    assert found.lengths.tolist() == [8, 4]
    np.testing.assert_array_equal(found.x[:, 0, 8], 1)
    assert found.x[0, 4, 9] == found.x[1, 2, 9] == 1
    np.testing.assert_array_equal(found.x[0, 1:4, :8], found.y[0, 5:8])
    np.testing.assert_array_equal(found.x[1, 1, :8], found.y[1, 3])
    np.testing.assert_array_equal(found.counts[0], [0] * 5 + [1] * 3 + [0] * 2)
    assert not found.x[1, 3:].any()
    assert not found.y[found.counts == 0].any()


def test_recall_wants_the_item_that_follows():
    found = memory.make("recall", [4] * 20, np.random.default_rng(1))
    places = set()
    for x, y, counts in zip(found.x, found.y, found.counts, strict=True):
        marks, asked = np.flatnonzero(x[:, 6]), np.flatnonzero(x[:, 7])
        assert marks.tolist() == [0, 4, 8, 12]
        assert asked.tolist() == [16, 20]
        items = [x[m + 1 : m + 4, :6] for m in marks]
        at = next(k for k, item in enumerate(items) if np.array_equal(item, x[17:20, :6]))
        places.add(at)
        np.testing.assert_array_equal(y[21:24], items[at + 1])
        assert np.flatnonzero(counts).tolist() == [21, 22, 23]
    assert places == {0, 1, 2}


def test_sorted_vectors_go_from_the_highest_priority_down():
    found = memory.make("sort", [5, 2], np.random.default_rng(2))
    order = np.argsort(-found.x[0, :5, 8])
    np.testing.assert_array_equal(found.y[0, 6:11], found.x[0, order, :8])
    assert found.lengths.tolist() == [11, 5]
    assert found.x[1, 2, 9] == 1
    assert np.flatnonzero(found.counts[1]).tolist() == [3, 4]


@pytest.mark.parametrize("task", memory.TASKS)
def test_steps_are_those_of_the_sequences(task):
    found = memory.make(task, [2, 7], np.random.default_rng(3))
    assert found.lengths.tolist() == [memory.steps(task, 2), memory.steps(task, 7)]
    ends = [np.flatnonzero(row)[-1] + 1 for row in found.counts]
    assert ends == found.lengths.tolist()


def test_bits_are_minus_log2_of_the_answers_probability():
    class Half:
        def predict(self, x, lengths):
            return np.full((*x.shape[:2], 8), np.log(3.0))  # each bit is 1 with probability 3/4

    found = memory.make("copy", [3, 1], np.random.default_rng(0))
    want = [-np.log2(np.where(y[c > 0] == 1, 0.75, 0.25)).sum()
            for y, c in zip(found.y, found.counts, strict=True)]  # fmt: skip
    np.testing.assert_allclose(memory.bits_wrong(Half(), found), want)


def test_batches_follow_from_seed_and_epoch():
    def first(epoch, seed=0):
        batches = memory.FreshSequences("copy", 4, 3, 5, seed)
        batches.set_epoch(epoch)
        return next(iter(batches))[0][0]

    np.testing.assert_array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))
    assert not np.array_equal(first(1), first(1, seed=1))


@pytest.mark.parametrize("net", memory.NETS)
def test_what_is_not_known_becomes_less(net):
    small = {"slots": 8, "width": 4, "hidden": 16, "longest": 2, "lr": 0.01}
    trainer, history = memory.train_memory(
        "copy", net, **small, batches=60, epochs=5, workers=1, verbose=False
    )
    assert history["val_bits"][-1] < 0.7 * history["val_bits"][0]
    short, long = memory.measure(trainer.model, "copy", [1, 2])
    assert short < long


def test_both_nets_have_as_many_parameters():
    for task in memory.TASKS:
        a, b = (
            sum(p.size for p in memory.MemoryNet(task, net).named_arrays().values())
            for net in memory.NETS
        )
        assert abs(a - b) < 0.01 * a


def test_picture_and_checkpoint(tmp_path):
    pytest.importorskip("matplotlib")
    model = memory.MemoryNet("recall", slots=8, width=3, hidden=4)
    figure = memory.draw_weightings(model, 3, tmp_path / "weightings.png")
    assert (tmp_path / "weightings.png").stat().st_size > 1000
    assert [ax.images[0].get_array().shape for ax in figure.axes] == [
        (8, 20), (6, 20), (6, 20), (8, 20), (8, 20)
    ]  # fmt: skip
    model.save(tmp_path / "model.safetensors")
    path = memory.save_description(model, tmp_path / "model.safetensors")
    found = memory.make("recall", [3, 2], np.random.default_rng(0))
    again = memory.load_memory(tmp_path)
    refused(memory.load_memory, tmp_path, lambda state: state["options"].update(slots=9))
    np.testing.assert_array_equal(memory.bits_wrong(again, found), memory.bits_wrong(model, found))
    path.write_text(json.dumps({**json.loads(path.read_text()), "net": "gru"}))
    with pytest.raises(DataError, match="ntm, lstm"):
        memory.load_memory(tmp_path)


def test_mistakes():
    with pytest.raises(OptionError, match="copy, recall, sort"):
        memory.MemoryNet("reverse")
    with pytest.raises(OptionError, match="ntm, lstm"):
        memory.MemoryNet("copy", "gru")
    with pytest.raises(OptionError, match="2 or more"):
        memory.make("recall", [1], np.random.default_rng(0))
    with pytest.raises(OptionError, match="longest"):
        memory.train_memory("recall", longest=1)
    with pytest.raises(OptionError, match="'ntm'"):
        memory.draw_weightings(memory.MemoryNet("copy", "lstm", hidden=4), 2)
