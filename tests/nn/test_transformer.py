"""Attention layers, positions and the Transformer: gradients, caches, padding, options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.nn.positions import Place
from fastnn.testing import gradcheck

LENGTHS = np.array([5, 2, 3])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_gradients_of_attention() -> None:
    x, y = normal(3, 5, 4), normal(3, 4, 4, seed=1)
    assert gradcheck(nn.MultiHeadAttention(4, 2, dropout=0.3), x)
    assert gradcheck(nn.MultiHeadAttention(4, 2, kdim=3, vdim=4), y, x[..., :3], x)
    assert gradcheck(nn.MultiHeadAttention(4, 2, rotary=True), x)


@pytest.mark.parametrize("norm_first", [False, True])
def test_gradients_of_layers(norm_first: bool) -> None:
    x, y = normal(3, 5, 4), normal(3, 4, 4, seed=1)
    options = {"dropout": 0.2, "activation": "gelu", "norm_first": norm_first}
    assert gradcheck(nn.TransformerEncoderLayer(4, 2, 6, **options), x, LENGTHS, rtol=1e-4)
    layer = nn.TransformerDecoderLayer(4, 2, 6, **options)
    assert gradcheck(layer, y, x, np.array([4, 4, 1]), LENGTHS, rtol=1e-4)


@pytest.mark.parametrize("norm_first", [False, True])
def test_padding_and_neighbours_change_no_bit(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8))
    x = normal(3, 5, 8).astype(np.float32)
    want = [model.predict(x[k : k + 1, :n])[0] for k, n in enumerate(LENGTHS)]
    x[1, 2:], x[2, 3:] = np.nan, 1e30
    found = model.predict(x, LENGTHS)
    for k, n in enumerate(LENGTHS):
        np.testing.assert_array_equal(found[k, :n], want[k])


class Whole(nn.Module):
    """A decoder over all steps, or with its caches step by step."""

    def __init__(self, norm_first: bool, rotary: bool, positions: Any):
        layer = nn.TransformerDecoderLayer(8, 2, 12, norm_first=norm_first, rotary=rotary)
        self.decoder = nn.TransformerDecoder(layer, 2, nn.LayerNorm(8))
        self.positions, self.stepwise = positions, False

    def forward(self, x: Any, memory: Any, lengths: Any) -> Any:
        if not self.stepwise:
            return self.decoder(self.positions(x), memory, memory_lengths=lengths)
        seen = self.decoder.project_memory(memory)

        def step(x_t: Any, state: Any) -> Any:
            place = Place(state[0])
            caches = list(zip(state[1::2], state[2::2], strict=True))
            y, caches = self.decoder.step(self.positions(x_t, place), caches, place, seen, lengths)
            return y, (place.after, *(part for pair in caches for part in pair))

        caches = self.decoder.cache(x, x.shape[1])
        start = (Place.start(x, x.shape[1]), *(part for pair in caches for part in pair))
        return ops.loop(step, x, start)[0]


@pytest.mark.parametrize(
    ("norm_first", "rotary", "positions"),
    [
        (False, False, nn.SinusoidalPositions(8)),
        (True, False, nn.LearnedPositions(9, 8)),
        (True, True, nn.Identity()),
    ],
    ids=["sinusoidal", "learned", "rotary"],
)
def test_step_by_step(norm_first: bool, rotary: bool, positions: Any) -> None:
    """Keys and values from the caches give what all steps at once do."""
    if rotary:
        positions = NoPositions()
    model = Whole(norm_first, rotary, positions).to("float64")
    x, memory = normal(3, 6, 8), normal(3, 5, 8, seed=1)
    want = model.predict(x, memory, LENGTHS)
    other = Whole(norm_first, rotary, positions).to("float64")
    other.load_state_dict(model.state_dict())
    other.stepwise = True
    np.testing.assert_allclose(other.predict(x, memory, LENGTHS), want, rtol=1e-9, atol=1e-10)


class NoPositions(nn.Module):
    def forward(self, x: Any, place: Any = None) -> Any:
        return x


def test_encoder_step_by_step() -> None:
    class Steps(nn.Module):
        def __init__(self, encoder: nn.Module):
            self.encoder = encoder

        def forward(self, x: Any) -> Any:
            def step(x_t: Any, state: Any) -> Any:
                place = Place(state[0])
                y, [(k, v)] = self.encoder.step(x_t, [state[1:]], place)
                return y, (place.after, k, v)

            [(k, v)] = self.encoder.cache(x, x.shape[1])
            return ops.loop(step, x, (Place.start(x, x.shape[1]), k, v))[0]

    class Causal(nn.Module):
        def __init__(self, encoder: nn.Module):
            self.encoder = encoder

        def forward(self, x: Any) -> Any:
            return self.encoder(x, causal=True)

    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, rotary=True), 1)
    x = normal(2, 7, 8)
    want = Causal(encoder).to("float64").predict(x)
    steps = Steps(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, rotary=True), 1))
    steps.to("float64")
    steps.encoder.load_state_dict(encoder.state_dict())
    np.testing.assert_allclose(steps.predict(x), want, rtol=1e-9, atol=1e-10)


def test_sinusoidal_positions() -> None:
    got = nn.SinusoidalPositions(5).to("float64").predict(np.zeros((1, 4, 5)))[0]
    for t in range(4):
        for i in range(5):
            angle = t / 10000.0 ** (2 * (i // 2) / 6)
            want = np.cos(angle) if i % 2 else np.sin(angle)
            assert abs(got[t, i] - want) < 1e-12


def test_rotary_positions_depend_on_distances() -> None:
    """Products of turned queries and keys are the same wherever two steps are so far apart."""
    q, k = normal(1, 1, 4), normal(1, 1, 4, seed=1)
    layer = nn.RotaryPositions(4).to("float64")
    a, b = (layer.predict(np.repeat(x, 9, 1))[0] for x in (q, k))
    products = a @ b.T
    for apart in range(-8, 9):
        diagonal = np.diagonal(products, apart)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-12)
    assert abs(products[0, 0] - products[0, 3]) > 1e-3
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), np.linalg.norm(q))


def test_learned_positions() -> None:
    assert gradcheck(nn.LearnedPositions(6, 3), normal(2, 4, 3))
    with pytest.raises(ShapeError, match="at most 6 steps, got 7"):
        nn.LearnedPositions(6, 3).predict(np.zeros((2, 7, 3), np.float32))


def test_copies_are_drawn_apart() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2)
    first, second = (layer.self_attn.in_proj_weight.value for layer in encoder.layers)
    assert not np.array_equal(first, second)
    assert np.abs(first).max() <= np.sqrt(6 / 32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.MultiHeadAttention(8, 3), "num_heads to divide embed_dim=8, got 3"),
        (lambda: nn.MultiHeadAttention(8, 2, dropout=1.0), r"dropout in \[0, 1\), got 1\.0"),
        (lambda: nn.MultiHeadAttention(6, 2, rotary=True), "an even size, got 3"),
        (lambda: nn.TransformerEncoderLayer(8, 2, activation="tanh"), "activation to be one of"),
        (lambda: nn.TransformerEncoder(nn.Linear(2, 2), 2), r"nn\.TransformerEncoderLayer"),
    ],
)
def test_wrong_options(make: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


def test_wrong_shapes() -> None:
    with pytest.raises(ShapeError, match=r"query of shape \(batch, steps, 8\), got \(2, 3, 6\)"):
        nn.MultiHeadAttention(8, 2).predict(np.zeros((2, 3, 6), np.float32))
    with pytest.raises(ShapeError, match=r"input of shape \(batch, steps, 4\)"):
        nn.SinusoidalPositions(4).predict(np.zeros((2, 3, 6), np.float32))


class OneStep(nn.Module):
    """A step whose place and caches come from outside."""

    def __init__(self) -> None:
        self.attention = nn.MultiHeadAttention(4, 2, rotary=True)

    def forward(self, x: Any, written: Any, k: Any, v: Any) -> Any:
        place = Place(written)
        y, pair = self.attention.step(x, (k, v), place)
        return y, place.after, *pair


class ManySteps(nn.Module):
    def __init__(self, room: int, steps: int):
        self.attention, self.room, self.steps = nn.MultiHeadAttention(4, 2), room, steps

    def forward(self, x: Any) -> Any:
        def step(_: Any, state: Any) -> Any:
            place = Place(state[1])
            y, pair = self.attention.step(state[0], state[2:], place)
            return y, (y, place.after, *pair)

        state = (x, Place.start(x, self.room), *self.attention.cache(x, self.room))
        return ops.loop(step, None, state, steps=self.steps)[0]


def test_steps_beyond_the_caches_are_refused() -> None:
    """Their keys would be lost without a word, and their positions be none."""
    model, caches = OneStep(), [np.zeros((2, 3, 4))] * 2
    written = np.array([[1.0, 0, 0], [1.0, 1, 0]])
    _, written, *caches = model.predict(normal(2, 4), written, *caches)
    np.testing.assert_array_equal(written, [[1, 1, 0], [1, 1, 1]])
    with pytest.raises(DataError, match="a step left of 3, got sample 1 with all"):
        model.predict(normal(2, 4), written, *caches)
    assert ManySteps(3, 3).predict(normal(2, 4)).shape == (2, 3, 4)
    with pytest.raises(ShapeError, match="room for the loop's 4 steps, got 3"):
        ManySteps(3, 4).predict(normal(2, 4))
