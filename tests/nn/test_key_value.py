"""A memory of keys and values: against float64 NumPy and PyTorch, with its gradients."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.testing import gradcheck

SETTINGS = [dict(hops=1), dict(hops=3), dict(hops=3, tied=True)]
LENGTHS = np.array([6, 2, 0, 1])


def inputs():
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 5)), rng.normal(size=(4, 6, 5)), rng.normal(size=(4, 6, 5))


def naive(model, query, keys, values, lengths):
    """One question after the other, slot by slot."""
    updates = [p.astype(np.float64) for p in model.state_dict().values()]
    answers, weights = np.zeros_like(query), np.zeros((len(query), model.hops, keys.shape[1]))
    for b, q in enumerate(query):
        for hop in range(model.hops):
            powers = [np.exp(keys[b, s] @ q) for s in range(lengths[b])]
            read = np.zeros(len(q))
            for s, power in enumerate(powers):
                weights[b, hop, s] = power / sum(powers)
                read += weights[b, hop, s] * values[b, s]
            q = updates[hop % len(updates)] @ (q + read)
        answers[b] = q
    return answers, weights


@pytest.mark.parametrize("settings", SETTINGS)
def test_answers_and_weights(settings):
    model, given = nn.KeyValueMemory(5, **settings), inputs()
    for lengths in (None, LENGTHS):
        more = () if lengths is None else (lengths,)
        got = model.predict(*(x.astype(np.float32) for x in given), *more)
        want = naive(model, *given, np.full(4, 6) if lengths is None else lengths)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_what_stands_past_the_end_changes_no_bit():
    model, found = nn.KeyValueMemory(5), []
    for number in (0.0, 7e8):
        query, keys, values = (x.astype(np.float32) for x in inputs())
        for b, length in enumerate(LENGTHS):
            keys[b, length:], values[b, length:] = number, number
        found.append([x.tobytes() for x in model.predict(query, keys, values, LENGTHS)])
    assert found[0] == found[1]


class Answers(nn.Module):
    """Answers and weights in one array."""

    def __init__(self, **settings):
        self.layer = nn.KeyValueMemory(5, **settings)

    def forward(self, query, keys, values, lengths=None):
        answer, weights = self.layer(query, keys, values, lengths)
        return ops.concatenate(answer, ops.reshape(weights, weights.shape[0], -1))


@pytest.mark.parametrize("settings", SETTINGS[1:])
def test_gradients_are_those_of_differences(settings):
    assert gradcheck(Answers(**settings), *inputs())


@pytest.mark.peers
@pytest.mark.parametrize("settings", SETTINGS)
def test_outputs_and_gradients_are_pytorchs(settings):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    model = Answers(**settings).to("float64")
    given = inputs()
    lengths = np.array([6, 2, 3, 1])
    query, keys, values = (torch.from_numpy(x) for x in given)
    matrices = {
        n: torch.from_numpy(np.array(p)).requires_grad_()
        for n, p in model.named_parameters().items()
    }
    hidden, found = torch.from_numpy(np.arange(6) >= lengths[:, None]), []
    for hop in range(settings["hops"]):
        scores = torch.einsum("bsc,bc->bs", keys, query).masked_fill(hidden, -torch.inf)
        found.append(torch.softmax(scores, 1))
        query = query + torch.einsum("bs,bsc->bc", found[-1], values)
        query = query @ list(matrices.values())[hop % len(matrices)].T
    want = torch.cat([query, *found], 1)
    weight = np.random.default_rng(1).normal(size=want.shape)
    (want * torch.from_numpy(weight)).sum().backward()
    np.testing.assert_allclose(model.predict(*given, lengths), want.detach().numpy(), rtol=1e-9)
    step = fnn.compile(
        model, lambda y, w: ops.sum(y * w), "sgd", dtype="float64", keep_gradients=True
    )
    step((*given, lengths), weight)
    for name, parameter in model.named_parameters().items():
        np.testing.assert_allclose(parameter.grad, matrices[name].grad.numpy(), rtol=1e-7)


def test_mistakes():
    with pytest.raises(OptionError, match="hops"):
        nn.KeyValueMemory(5, hops=0)
    query, keys, values = inputs()
    model = nn.KeyValueMemory(5)
    with pytest.raises(ShapeError, match=r"query of shape \(batch, 5\)"):
        model.predict(query[:, :4], keys, values)
    with pytest.raises(ShapeError, match=r"keys of shape"):
        model.predict(query, keys[:, :, :4], values)
    with pytest.raises(ShapeError, match="6 keys and 5 values"):
        model.predict(query, keys, values[:, :5])
    with pytest.raises(ShapeError, match="numbers of slots"):
        model.predict(query, keys, values, np.ones((4, 2), int))
    with pytest.raises(DataError, match="7"):
        model.predict(query, keys, values, np.array([6, 2, 0, 7]))
