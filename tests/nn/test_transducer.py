"""The transducer's loss against the sum over all paths."""

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.errors import DataError, ShapeError
from fastnn.testing import gradcheck


def paths(y, labels, t=0, u=0):
    """log p of the labels: every path, one after another."""
    T, found = len(y), []
    if t == T - 1 and u == len(labels):
        return [y[t, u, 0]]
    if t < T - 1:
        found += [y[t, u, 0] + p for p in paths(y, labels, t + 1, u)]
    if u < len(labels):
        found += [y[t, u, labels[u]] + p for p in paths(y, labels, t, u + 1)]
    return found


class Loss(nn.Module):
    def forward(self, x, labels, lengths, counts):
        loss = ops.transducer_loss(x, labels, lengths, counts)
        return loss, ops.gradient(ops.total(loss), x)


def data(B=4, T=4, L=3, C=4):
    rng = np.random.default_rng(0)
    x = 2 * rng.standard_normal((B, T, L + 1, C)).astype(np.float32)
    return x, rng.integers(1, C, (B, L)), np.array([4, 3, 1, 2]), np.array([3, 2, 3, 0])


def test_the_sum_over_all_paths():
    x, labels, lengths, counts = data()
    loss, _ = Loss().predict(x, labels, lengths, counts)
    for n in range(4):
        y = x[n].astype(np.float64)
        y -= np.log(np.exp(y).sum(-1, keepdims=True))
        each = paths(y[: lengths[n]], labels[n, : counts[n]].tolist())
        np.testing.assert_allclose(loss[n], -np.logaddexp.reduce(each), rtol=1e-5)


def test_what_is_added_to_all_logits_does_not_matter():
    """Numbers of which float32 holds the sums exactly."""
    x, *more = data()
    x = np.round(x * 256) / 256
    for got, want in zip(Loss().predict(x + 4096, *more), Loss().predict(x, *more), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("T", "L"), [(1, 1), (1, 3), (5, 1), (6, 2)])
def test_the_sum_over_all_paths_in_float64(T, L):
    """With no label, one frame, the same label twice; loss and gradient."""
    x = 2 * np.random.default_rng(T).standard_normal((3, T, L + 1, 3))
    labels, lengths, counts = np.ones((3, L), int), np.array([T, 1, T]), np.array([L, L, 0])
    labels[0, -1] = 2
    model = Loss()
    model.store("float64")
    loss, dx = model.predict(x, labels, lengths, counts)

    def wanted(n, y):
        y = y - np.log(np.exp(y).sum(-1, keepdims=True))
        return -np.logaddexp.reduce(paths(y[: lengths[n]], labels[n, : counts[n]].tolist()))

    for n in range(3):
        np.testing.assert_allclose(loss[n], wanted(n, x[n]), rtol=1e-10)
        for place in ((0, 0, 0), (0, 0, 1), (lengths[n] - 1, counts[n], 0)):
            shift = np.zeros(x[n].shape)
            shift[place] = 1e-5
            slope = (wanted(n, x[n] + shift) - wanted(n, x[n] - shift)) / 2e-5
            np.testing.assert_allclose(dx[n][place], slope, atol=1e-8)


def test_the_gradient_is_that_of_differences():
    x, labels, lengths, counts = data()

    def loss(v):
        given = (v.graph.constant(a, "i") for a in (labels, lengths, counts))
        return ops.transducer_loss(v, *given, by_labels=True)

    gradcheck(loss, x.astype(np.float64))


def test_padding_and_neighbours_do_not_matter():
    x, labels, lengths, counts = data()
    loss, dx = Loss().predict(x, labels, lengths, counts)
    for n in range(4):
        x[n, lengths[n] :], x[n, :, counts[n] + 1 :] = np.nan, np.nan
        labels[n, counts[n] :] = 99
    again, dx_again = Loss().predict(x, labels, lengths, counts)
    np.testing.assert_array_equal(loss, again)
    np.testing.assert_array_equal(dx, dx_again)
    one = x[1:2, :3, :3].copy(), labels[1:2, :2].copy(), lengths[1:2], counts[1:2]
    alone, dx_alone = Loss().predict(*one)
    np.testing.assert_array_equal(loss[1:2], alone)
    np.testing.assert_array_equal(dx[1:2, :3, :3], dx_alone)


def test_bad_input_is_refused_by_name():
    x, labels, lengths, counts = data()
    wrong = labels.copy()
    wrong[1, 0] = 0
    with pytest.raises(DataError, match="got 0 as label 0 of sequence 1; 0 is the blank"):
        Loss().predict(x, wrong, lengths, counts)
    with pytest.raises(DataError, match="got 5"):
        Loss().predict(x, labels, lengths + 1, counts)
    with pytest.raises(
        DataError,
        match=r"lengths in 1\.\.4, the steps of its sequences, at least one step, got 0; leave",
    ):
        Loss().predict(x, labels, lengths - 1, counts)
    with pytest.raises(ShapeError, match="one less than"):
        Loss().predict(x, labels[:, :2].copy(), lengths, counts)
    with pytest.raises(ShapeError, match=r"labels \+ 1, classes"):
        Loss().predict(x[:, :, 0].copy(), labels, lengths, counts)
