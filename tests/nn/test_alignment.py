"""Attention of recurrent decoders: weights against NumPy, gradients, lengths, masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError, ShapeError
from fastnn.testing import gradcheck

B, N, Q, K, A = 3, 6, 4, 5, 7
LENGTHS = np.array([6, 2, 4])
KINDS: dict[str, Any] = {
    "dot": lambda: nn.DotAttention(Q),
    "scaled dot": lambda: nn.DotAttention(Q, scaled=True),
    "general": lambda: nn.GeneralAttention(Q, K),
    "additive": lambda: nn.AdditiveAttention(Q, K, A),
    "coverage": lambda: nn.AdditiveAttention(Q, K, A, coverage=True),
    "location": lambda: nn.LocationAttention(Q, K, A, filters=2, width=3),
    "monotonic": lambda: nn.GeneralAttention(Q, K, monotonic=1),
}


class Decoder(nn.Module):
    """A few steps of attention with given queries."""

    def __init__(self, attention: Any):
        self.attention = attention

    def forward(self, queries: Any, encoded: Any, lengths: Any = None) -> Any:
        prepared = self.attention.prepare(encoded, lengths)

        def step(query: Any, before: Any) -> Any:
            context, weights, before = self.attention(query, prepared, before)
            return (context, weights), before

        return ops.loop(step, queries, self.attention.start(encoded))[0]


def data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(B, 4, Q)), rng.normal(size=(B, N, Q if "dot" in kind else K))


def expected(kind: str, layer: Any, queries: Any, encoded: Any, lengths: Any) -> Any:
    """Contexts and weights, step by step, in NumPy."""
    p = {n: np.array(v.value) for n, v in layer.named_parameters().items()}
    contexts, all_weights = [], []
    for b in range(B):
        keys = encoded[b, : lengths[b]]
        n = len(keys)
        before, total = np.eye(1, n)[0], np.zeros(n)
        for t in range(queries.shape[1]):
            q = queries[b, t]
            if "dot" in kind:
                s = keys @ q * (Q**-0.5 if kind == "scaled dot" else 1.0)
            elif kind in ("general", "monotonic"):
                s = keys @ p["project.weight"].T @ q
            else:
                inner = keys @ p["key.weight"].T + p["query.weight"] @ q + p["query.bias"]
                if kind == "coverage":
                    inner = inner + total[:, None] * p["covered"]
                if kind == "location":
                    padded = np.pad(before, 1)
                    found = np.array([[p["location"][f, 0] @ padded[i : i + 3] for f in range(2)]
                                      for i in range(n)])  # fmt: skip
                    inner = inner + found @ p["located.weight"].T
                s = np.tanh(inner) @ p["score"]
            if kind == "monotonic":
                median = int(np.argmax(np.cumsum(before) >= 0.5))
                s = np.where((np.arange(n) >= median) & (np.arange(n) <= median + 1), s, -np.inf)
            w = np.exp(s - s.max())
            before = w / w.sum()
            total = total + before
            contexts.append(before @ keys)
            all_weights.append(np.pad(before, (0, encoded.shape[1] - n)))
    steps = queries.shape[1]
    return (np.reshape(contexts, (B, steps, -1)), np.reshape(all_weights, (B, steps, -1)))


@pytest.mark.parametrize("kind", KINDS)
def test_values(kind: str) -> None:
    queries, encoded = data(kind)
    model = Decoder(KINDS[kind]()).to("float64")
    for lengths in (LENGTHS, np.full(B, N)):
        given = encoded.copy()
        for b in range(B):
            given[b, lengths[b] :] = np.nan
        whole = lengths.min() == N
        found = model.predict(queries, given, *(() if whole else (lengths,)))
        for got, want in zip(found, expected(kind, model.attention, queries, given, lengths),
                             strict=True):  # fmt: skip
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    queries, encoded = data(kind)
    assert gradcheck(Decoder(KINDS[kind]()), queries, encoded, LENGTHS, rtol=1e-4)


def test_coverage_loss() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(5), (2, 4))

    class Loss(nn.Module):
        def forward(self, x: Any) -> Any:
            return ops.coverage_loss(x)

    want = [sum(np.minimum(w[t], w[:t].sum(0)).sum() for t in range(4)) for w in weights]
    np.testing.assert_allclose(Loss().to("float64").predict(weights), want)
    with pytest.raises(ShapeError, match=r"expected weights of shape \(batch, steps, positions\)"):
        Loss().predict(weights[0])


def test_wrong_options() -> None:
    with pytest.raises(OptionError, match="an odd width, got 4"):
        nn.AdditiveAttention(Q, K, A, filters=2, width=4)
    with pytest.raises(ShapeError, match="set key_size to 4"):
        Decoder(KINDS["general"]()).predict(np.zeros((B, 2, Q)), np.zeros((B, N, 4)))
    with pytest.raises(ShapeError, match="set query_size to 2"):
        Decoder(KINDS["general"]()).predict(np.zeros((B, 2, 2)), np.zeros((B, N, K)))


# ---------------------------------------------------------------- the decoder


def decoder(**options: Any) -> Any:
    return nn.AttentionDecoder(6, 3, 4, key_size=K, **options)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"cell": "lstm", "attention": nn.GeneralAttention(4, K)}, {"attention": "none"},
        {"sampling": 0.0, "attention": nn.LocationAttention(4, K, 3, filters=2, width=3)},
    ],
    ids=["gru", "lstm", "none", "sampling"],
)  # fmt: skip
def test_gradients_of_a_decoder(options: Any) -> None:
    rng = np.random.default_rng(2)
    encoded, targets = rng.normal(size=(B, N, K)), rng.integers(0, 6, (B, 4))
    assert gradcheck(decoder(**options), encoded, targets, LENGTHS, rtol=1e-4)


def test_own_symbols_take_the_place_of_targets() -> None:
    """With probability 1 what the decoder writes does not depend on the targets; with 0 it does."""
    rng = np.random.default_rng(2)
    encoded = rng.normal(size=(B, N, K)).astype(np.float32)
    targets = [rng.integers(0, 6, (B, 5)) for _ in range(2)]
    for rate, alike in ((1.0, True), (0.0, False), (0.5, False)):
        model = decoder(sampling=0.3)
        model.sampling.value = [rate]
        step = fnn.compile(
            model, lambda y, w: ops.sum(y[0] * w), optim.SGD(lr=0.0), seed=4, workers=1
        )
        weight = np.random.default_rng(0).normal(size=(B, 5, 6)).astype(np.float32)
        losses = [step((encoded, target), weight) for target in targets]
        if rate == 0.5:
            assert losses[0] != losses[1]
        else:
            assert (losses[0] == losses[1]) == alike


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_beam_of_one_writes_the_likeliest(cell: str) -> None:
    """What beam search writes is what the decoder gives for its own output."""

    class Writer(nn.Module):
        def __init__(self, inner: Any):
            self.inner = inner

        def forward(self, encoded: Any, lengths: Any) -> Any:
            return self.inner.write(encoded, lengths, steps=7, width=1)

    model = decoder(cell=cell).to("float64")
    encoded = np.random.default_rng(2).normal(size=(B, N, K))
    symbols, lengths, scores = Writer(model).predict(encoded, LENGTHS)
    logits, _ = model.predict(encoded, symbols[:, 0], LENGTHS)
    for b in range(B):
        n = lengths[b, 0]
        assert logits[b, :n].argmax(-1).tolist() == symbols[b, 0, :n].tolist()
        p = logits[b, :n] - np.log(np.exp(logits[b, :n]).sum(-1, keepdims=True))
        want = sum(p[t, symbols[b, 0, t]] for t in range(n))
        np.testing.assert_allclose(scores[b, 0], want)


def test_wrong_options_of_a_decoder() -> None:
    for options, message in (
        ({"cell": "rnn"}, "cell 'gru' or 'lstm', got 'rnn'"),
        ({"stop": 6}, "start and stop below symbols=6"),
        ({"sampling": 2.0}, r"sampling in \[0, 1\], got 2\.0"),
        ({"attention": 3}, "expected attention such as"),
    ):
        with pytest.raises(OptionError, match=message):
            decoder(**options)
