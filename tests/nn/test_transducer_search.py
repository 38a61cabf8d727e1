"""A transducer's decoding against all sequences of labels."""

import itertools

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.testing import gradcheck
from tests.nn.test_transducer import paths


class Encoder(nn.Module):
    def __init__(self, features):
        self.lstm = nn.LSTM(features, 5)

    def forward(self, frames, lengths=None):
        return self.lstm(frames, lengths=lengths)


def model_of(seed, classes=3):
    model = nn.Transducer(Encoder(4), 5, classes, embedding=3, hidden=6, joint=7)
    rng = np.random.default_rng(seed)
    for name, p in model.named_parameters().items():
        scale = 3.0 if name.startswith(("vectors", "out")) else 1.0
        p.value = scale * rng.standard_normal(p.shape)
    return model


def all_scores(model, frames, most):
    """log p of each sequence of up to `most` labels."""
    found = {}
    for size in range(most + 1):
        for labels in itertools.product(range(1, model.symbols), repeat=size):
            given = np.zeros((1, most), np.int64)
            given[0, :size] = labels
            y = model.predict(frames[None], given)[0, :, : size + 1].astype(np.float64)
            y -= np.log(np.exp(y).sum(-1, keepdims=True))
            found[labels] = np.logaddexp.reduce(paths(y, list(labels)))
    return found


@pytest.mark.parametrize("T", [1, 2, 4])
def test_a_wide_beam_finds_what_enumeration_finds(T):
    most, lengths = 3, np.array([T, 1, T])
    model = model_of(T)
    frames = 2 * np.random.default_rng(T).standard_normal((3, T, 4)).astype(np.float32)
    decoder = nn.TransducerDecoder(model, ["", "a", "b"], 40, best=15, labels=most)
    labels, counts, scores = decoder.predict(frames, lengths)
    for n in range(3):
        wanted = all_scores(model, frames[n, : lengths[n]], most)
        assert len(wanted) == 15
        order = sorted(wanted, key=wanted.get, reverse=True)
        got = [tuple(row[:c]) for row, c in zip(labels[n], counts[n], strict=True)]
        assert got == order
        assert all((row[c:] == -1).all() for row, c in zip(labels[n], counts[n], strict=True))
        np.testing.assert_allclose(scores[n], [wanted[k] for k in order], rtol=1e-5, atol=1e-5)


def test_a_beam_of_one_takes_the_likeliest_symbol_in_each_step():
    most, T = 4, 5
    for seed in range(4):
        model = model_of(seed)
        frames = 2 * np.random.default_rng(seed).standard_normal((1, T, 4)).astype(np.float32)
        t, found, total = 0, [], 0.0
        while t < T:
            given = np.zeros((1, most), np.int64)
            given[0, : len(found)] = found
            y = model.predict(frames, given)[0, t, len(found)].astype(np.float64)
            y -= np.log(np.exp(y).sum())
            best = int(y.argmax()) if len(found) < most else 0
            total += y[best]
            t, found = (t + 1, found) if best == 0 else (t, [*found, best])
        labels, counts, score = nn.TransducerDecoder(model, ["", "a", "b"], 1, labels=most).predict(
            frames
        )
        assert labels[0, 0, : counts[0, 0]].tolist() == found
        np.testing.assert_allclose(score[0, 0], total, rtol=1e-5, atol=1e-5)


def test_neighbours_and_padding_do_not_matter():
    model = model_of(9)
    frames = np.random.default_rng(9).standard_normal((3, 4, 4)).astype(np.float32)
    lengths = np.array([4, 2, 3])
    decoder = nn.TransducerDecoder(model, ["", "a", "b"], 3, best=3, labels=4)
    together = decoder.predict(frames, lengths)
    frames[1, 2:] = 7.0
    again = decoder.predict(frames, lengths)
    alone = decoder.predict(frames[1:2, :2], lengths[1:2])
    for a, b, c in zip(together, again, alone, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a[1:2], c, rtol=1e-5)


def test_the_bits_are_those_of_any_number_of_workers():
    frames = np.random.default_rng(3).standard_normal((7, 4, 4)).astype(np.float32)
    labels, counts = np.array([[1, 2, 0]] * 7), np.array([2] * 7)
    found = []
    for workers in (1, 3):
        trainer = fnn.Trainer(model_of(3), nn.TransducerLoss(), "adam", workers=workers)
        trainer.fit((frames, labels), (labels, counts), epochs=2, batch_size=7, verbose=False)
        decoder = nn.TransducerDecoder(trainer.model, ["", "a", "b"], 3, best=2, labels=4)
        found.append([*decoder.predict(frames), trainer.model.out.weight.value])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_of_the_whole_net_are_those_of_differences():
    model = nn.Transducer(Encoder(2), 5, 3, embedding=2, hidden=3, joint=4)
    frames = np.random.default_rng(0).standard_normal((2, 3, 2))
    gradcheck(model, frames, np.array([[1, 2], [2, 0]]), np.array([3, 2]))


def test_it_learns_to_write_and_reads_what_it_learnt():
    """Each of the frames' kinds is a label, kind 0 none, kind 3 two labels at once."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, (96, 5))
    frames = np.eye(4, dtype=np.float32)[kinds]
    meant = [[label for k in row for label in {0: [], 1: [1], 2: [2], 3: [2, 1]}[int(k)]]
             for row in kinds]  # fmt: skip
    counts = np.array([len(row) for row in meant])
    labels = np.array([row + [0] * (10 - len(row)) for row in meant])
    model = nn.Transducer(Encoder(4), 5, 3, embedding=4, hidden=12, joint=16)
    trainer = fnn.Trainer(model, nn.TransducerLoss(), fnn.optim.Adam(lr=0.02), seed=1, workers=1)
    lengths = np.full(96, 5)
    history = trainer.fit(
        (frames, labels, lengths), (labels, counts), epochs=60, batch_size=16, verbose=False
    )
    assert history["loss"][-1] < 0.1
    for beam in (1, 4):
        texts = nn.TransducerDecoder(model, ["", "a", "b"], beam, labels=12).text(frames, lengths)
        right = sum(
            text == "".join(" ab"[k] for k in row) for text, row in zip(texts, meant, strict=True)
        )
        assert right > 90


def test_wrong_use_is_refused():
    model = model_of(0)
    with pytest.raises(OptionError, match="text for each of 3 classes"):
        nn.TransducerDecoder(model, ["", "a"])
    with pytest.raises(OptionError, match="beam to be at most 10,000, got 10,001"):
        nn.TransducerDecoder(model, ["", "a", "b"], 10_001)
    with pytest.raises(OptionError, match="at most beam=2"):
        nn.TransducerDecoder(model, ["", "a", "b"], 2, best=3)
    with pytest.raises(OptionError, match="one of 3 classes, got 3"):
        nn.Transducer(Encoder(4), 5, 3, blank=3)
    with pytest.raises(DataError, match="got 9"):
        nn.TransducerDecoder(model, ["", "a", "b"]).predict(
            np.ones((1, 4, 4), np.float32), np.array([9])
        )
    with pytest.raises(ShapeError, match="set encoded_size"):
        nn.Transducer(Encoder(4), 6, 3).predict(
            np.ones((1, 4, 4), np.float32), np.zeros((1, 2), np.int64)
        )
