"""The loss of labels without places in time, in models."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim, testing
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.testing import gradcheck
from tests import naive_ctc


class Reader(nn.Module):
    """Logits for frames, and their numbers."""

    def __init__(self):
        self.lstm = nn.LSTM(3, 5, bidirectional=True)
        self.logits = nn.Linear(10, 4)

    def forward(self, x, lengths):
        return self.logits(self.lstm(x, lengths=lengths)[0]), lengths


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((6, 8, 3)).astype(np.float32)
    labels = np.array([[1, 2, 3], [2, 2, -1], [3, -1, -1], [-1] * 3, [1, 3, 1], [1, 2, -1]])
    return (x, np.array([8, 6, 4, 3, 8, 5])), labels


def test_the_loss_is_the_mean_by_labels():
    (x, lengths), labels = data()
    model = Reader()
    logits, _ = model.predict(x, lengths)
    counts = (labels >= 0).sum(axis=1)
    rows, _ = naive_ctc.ctc(logits, labels, lengths, counts)
    for reduction, want in (
        ("mean", (rows / np.maximum(counts, 1)).mean()),
        ("sum", rows.sum()),
    ):
        trainer = fnn.Trainer(model, nn.CTCLoss(reduction=reduction), optim.SGD(lr=0.1))
        for y in (labels, (np.where(labels < 0, 0, labels), counts)):
            for batch in (6, 4):
                got = trainer.evaluate((x, lengths), y, batch_size=batch)["loss"]
                np.testing.assert_allclose(got, want, rtol=1e-5)


def test_it_learns():
    x, labels = data()
    trainer = fnn.Trainer(Reader(), nn.CTCLoss(), optim.Adam(lr=0.03), seed=2)
    history = trainer.fit(x, labels, epochs=150, batch_size=3, verbose=False)
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    logits, lengths = trainer.model.predict(*x)
    best = [naive_ctc.collapsed(z[:n].argmax(axis=1)) for z, n in zip(logits, lengths, strict=True)]
    assert best == [[k for k in row if k >= 0] for row in labels.tolist()]


def test_paths_that_are_too_small_for_a_float_before_they_count():
    """The first label comes at e^-88.5 in the first frames, which is 0 in float32 where programs
    run, or at e^-86 in the next ones; the last frames leave nothing else."""
    x = np.repeat([[0, -88.5, -200], [0, -86, -200], [-50, -200, 0]], 10, 0)[None]
    want, _ = naive_ctc.ctc(x, np.array([[1, 2]]), np.array([30]), np.array([2]), 0)
    got = testing.apply(ops.ctc_loss, x, np.array([[1, 2]]), dtype="float32")
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_label_that_is_too_small_for_a_float_in_the_last_frame():
    """All labels but one were there before, or all: it ends at e^-87.5, which is 0 where programs
    run, or with a blank at e^-66, which takes a millionth of the paths to have been so far."""
    x = np.zeros((1, 30, 7))
    x[0, :, 0], x[0, 29] = 16.0, -87.5
    x[0, 29, 0], x[0, 29, 6] = -66.0, 0.0
    labels = np.array([[1, 2, 3, 4, 5]])
    want, _ = naive_ctc.ctc(x, labels, np.array([30]), np.array([5]), 0)
    got = testing.apply(ops.ctc_loss, x, labels, dtype="float32")
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_the_gradient_is_that_of_differences():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 6, 4))
    labels, lengths = np.array([[1, 2], [3, 3], [2, 0]]), np.array([6, 4, 0])
    counts = np.array([2, 2, 0])
    for options in ({}, {"by_labels": True}, {"blank": 0, "zero_infinity": True}):
        gradcheck(lambda v, o=options: ops.ctc_loss(v, labels_of(v, labels), lengths_of(v, lengths),
                                                    lengths_of(v, counts), **o), x)  # fmt: skip


def labels_of(v, labels):
    return v.graph.constant(labels, "i")


def lengths_of(v, lengths):
    return v.graph.constant(lengths, "i")


@pytest.mark.parametrize(
    ("labels", "counts", "message"),
    [
        ([[1, 0, 2]], None, "got 0 as label 1 of sequence 0; 0 is the blank"),
        ([[1, 4, 2]], None, r"labels in 0\.\.3 other than the blank, got 4"),
        ([[1, 2, 2]], [4], r"target_lengths in 0\.\.3.* got 4 for sequence 0"),
        ([[1, -1, 2]], [3], "got -1 as label 1 of sequence 0; count from 0"),
        ([[1, 1, 1]], None, r"3 labels \(2 of them doubled\) to 4 frames, they need 5: sequence 0"),
    ],
)
def test_bad_labels_are_refused_by_name(labels, counts, message):
    x, lengths = np.ones((1, 8, 3), np.float32), np.array([4])
    y = np.array(labels) if counts is None else (np.array(labels), np.array(counts))
    trainer = fnn.Trainer(Reader(), nn.CTCLoss(), optim.SGD(lr=0.1))
    with pytest.raises(DataError, match=message):
        trainer.fit((x, lengths), y, epochs=1, verbose=False)
    step = fnn.compile(Reader(), nn.CTCLoss(), optim.SGD(lr=0.1))
    with pytest.raises(DataError, match=message):
        step((x, lengths), y)


def test_lengths_beyond_the_data_are_refused():
    x, labels = np.ones((2, 8, 3), np.float32), np.array([[1], [2]])
    trainer = fnn.Trainer(Reader(), nn.CTCLoss(), optim.SGD(lr=0.1))
    with pytest.raises(DataError, match=r"lengths in 0\.\.8.* got 9"):
        trainer.fit((x, np.array([8, 9])), labels, epochs=1, verbose=False)


def test_sequences_without_room_can_be_left_out():
    (x, lengths), labels = data()
    lengths[4] = 2
    trainer = fnn.Trainer(Reader(), nn.CTCLoss(zero_infinity=True), optim.SGD(lr=0.1))
    history = trainer.fit((x, lengths), labels, epochs=2, verbose=False)
    assert np.isfinite(history["loss"]).all()


def test_bad_options_and_shapes():
    with pytest.raises(OptionError, match="blank"):
        nn.CTCLoss(blank=-1)
    with pytest.raises(OptionError, match="zero_infinity"):
        nn.CTCLoss(zero_infinity=1)
    (x, lengths), labels = data()
    for loss, y, error, message in (
        (nn.CTCLoss(blank=4), labels, OptionError, r"blank in 0\.\.3"),
        (nn.CTCLoss(), labels[:, 0], ShapeError, "labels as integers of shape"),
        (nn.CTCLoss(), labels.astype(np.float32), ShapeError, "got floats"),
        (nn.CTCLoss(), (labels,) * 3, ShapeError, "got 3 parts"),
    ):
        with pytest.raises(error, match=message):
            fnn.Trainer(Reader(), loss, optim.SGD(lr=0.1)).fit(
                (x, lengths), y, epochs=1, verbose=False
            )


def test_the_same_bits_for_any_number_of_workers():
    x, labels = data()
    found = []
    for workers in (1, 2, 3):
        model = Reader()
        trainer = fnn.Trainer(model, nn.CTCLoss(), optim.Adam(), workers=workers, seed=1)
        trainer.fit(x, labels, epochs=3, batch_size=4, verbose=False)
        found.append(np.concatenate([p.read().ravel() for p in model.parameters()]))
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
