"""Adaptive softmax against PyTorch's, and against its own log-probabilities."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import DataError, OptionError, ShapeError

RNG = np.random.default_rng(0)
X, TARGET = RNG.standard_normal((9, 16)), np.array([0, 3, 5, 9, 10, 29, 19, 4, 20])


def pair(cutoffs, div_value, head_bias):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    other = torch.nn.AdaptiveLogSoftmaxWithLoss(16, 30, cutoffs, div_value, head_bias).double()
    model = nn.AdaptiveLogSoftmaxWithLoss(16, 30, cutoffs, div_value, head_bias)
    model.load_state_dict({k: v.numpy() for k, v in other.state_dict().items()})
    return torch, model, other


def in_float64(model):
    model.store("float64")
    return model


class Everything(nn.Module):
    """Outputs and gradients of one weighted sum of them."""

    def __init__(self, softmax):
        self.softmax = softmax

    def forward(self, x, target, dy):
        y, loss = self.softmax(x, target)
        whole = ops.add(ops.sum(ops.multiply(y, dy), 0), loss)
        tail = [layer.weight for cluster in self.softmax.tail for layer in cluster]
        weights = [x, self.softmax.head.weight, *tail]
        return y, loss, [ops.gradient(whole, w) for w in weights]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("cutoffs", "div_value", "head_bias"),
    [([5, 10, 20], 2.0, True), ([20], 4.0, False), ([1, 29], 1.0, True), ([29], 3.0, False)],
)
def test_outputs_and_gradients_are_pytorchs(cutoffs, div_value, head_bias):
    torch, model, other = pair(cutoffs, div_value, head_bias)
    dy = RNG.standard_normal(9)
    y, loss, grads = in_float64(Everything(model)).predict(X, TARGET, dy)
    x = torch.tensor(X, requires_grad=True)
    found = other(x, torch.tensor(TARGET))
    (found.output @ torch.tensor(dy) + found.loss).backward()
    np.testing.assert_allclose(y, found.output.detach(), rtol=1e-10)
    np.testing.assert_allclose(loss, found.loss.detach(), rtol=1e-10)
    tail = [layer.weight for cluster in other.tail for layer in cluster]
    for mine, theirs in zip(grads, [x, other.head.weight, *tail], strict=True):
        mine = mine if mine.shape == theirs.shape else mine.T
        np.testing.assert_allclose(mine, theirs.grad, rtol=1e-9, atol=1e-12)


class Whole(nn.Module):
    def __init__(self, softmax):
        self.softmax = softmax

    def forward(self, x):
        return self.softmax.log_prob(x), self.softmax.likeliest(x)


@pytest.mark.peers
def test_all_classes_are_pytorchs():
    torch, model, other = pair([5, 10, 20], 2.0, True)
    log_p, best = in_float64(Whole(model)).predict(X)
    np.testing.assert_allclose(log_p, other.log_prob(torch.tensor(X)).detach(), rtol=1e-10)
    np.testing.assert_array_equal(best, other.predict(torch.tensor(X)))


def test_it_is_a_distribution_and_takes_any_shape():
    model = nn.AdaptiveLogSoftmaxWithLoss(16, 30, [5, 10])
    x = RNG.standard_normal((2, 3, 16)).astype(np.float32)
    target = RNG.integers(0, 30, (2, 3))
    log_p, best = Whole(model).predict(x)
    np.testing.assert_allclose(np.exp(log_p.astype(float)).sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(best, log_p.argmax(-1))
    y, loss = model.predict(x, target)
    np.testing.assert_allclose(y, np.take_along_axis(log_p, target[..., None], -1)[..., 0],
                               rtol=1e-4, atol=1e-5)  # fmt: skip
    np.testing.assert_allclose(loss, -y.mean(), rtol=1e-5)


class Reader(nn.Module):
    def __init__(self):
        self.vectors = nn.Embedding(12, 8)
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(8, 12, [3, 6], 2.0)

    def forward(self, ids, target):
        return self.softmax(self.vectors(ids), target)[0]


def test_a_model_learns_with_it():
    ids = RNG.integers(0, 12, 96)
    target = (ids * 5 + 1) % 12
    trainer = fnn.Trainer(
        Reader(), lambda output, _: ops.mean(ops.negate(output)), fnn.optim.Adam(lr=0.05), workers=1
    )
    history = trainer.fit((ids, target), target, epochs=30, batch_size=32, verbose=False)
    assert history["loss"][-1] < 0.1


def test_wrong_use_is_refused():
    for cutoffs in ([], [3, 3], [5, 2], [30], [0], [2.5]):
        with pytest.raises(OptionError, match=r"growing cutoffs, each in 1\.\.29"):
            nn.AdaptiveLogSoftmaxWithLoss(16, 30, cutoffs)
    with pytest.raises(OptionError, match="leaves cluster 1 without features"):
        nn.AdaptiveLogSoftmaxWithLoss(15, 30, [5, 10])
    model = nn.AdaptiveLogSoftmaxWithLoss(16, 30, [5])
    with pytest.raises(DataError, match=r"0\.\.29, got 39"):
        model.predict(X.astype(np.float32), TARGET + 10)
    with pytest.raises(ShapeError, match="in_features"):
        model.predict(X[:, :8].astype(np.float32), TARGET)
    with pytest.raises(ShapeError, match="target of integers"):
        model.predict(X.astype(np.float32), TARGET[:, None])
