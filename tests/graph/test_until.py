"""Loops that end by a condition of the data: values, gradients, bits, how many steps are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import KernelError, ShapeError
from fastnn.graph.op import OPS
from fastnn.kernels.declare import KERNELS, kernel
from fastnn.testing import gradcheck

F, H, LIMIT = 4, 6, 2.5


class Net(nn.Module):
    """Adds up a number and stops when it is large enough; its body is of one of several ways.

    "rows": each sequence alone; "mixed": a step needs all samples of the batch; "nested": another
    loop in the body, which ends by itself.
    """

    def __init__(self, way: str = "rows"):
        self.way = way
        self.new, self.old, self.out = nn.Linear(F, H), nn.Linear(H, H), nn.Linear(H, 3)
        self.outside = nn.Linear(F, H)

    def step(self, x: Any, h: Any, beside: Any) -> Any:
        h = ops.tanh(self.new(x) + self.old(h) + beside)
        if self.way == "mixed":
            h = h - 0.3 * ops.mean(h, axis=0, keepdims=True)
        if self.way == "nested":
            several = ops.reshape(ops.concatenate(h, h, h), h.shape[0], 3, H)
            h = ops.loop(
                lambda a, b: (a, ops.tanh(self.old(a) + b)), several, h,
                until=lambda _, b: ops.sum(b * b, axis=1) > 1.0,
            )[1]  # fmt: skip
        return h

    def forward(self, x: Any, lengths: Any = None) -> Any:
        beside = self.outside(x[:, 0])

        def step(x_t: Any, state: Any) -> Any:
            h, total = state
            h = self.step(x_t, h, beside)
            total = total + ops.sum(h * h, axis=1, keepdims=True)
            return self.out(h), (h, total)

        start = ops.zeros_state(x, H), ops.zeros_state(x, 1)
        y, (h, total), done = ops.loop(
            step, x, start, lengths, until=lambda _, state: state[1] > LIMIT
        )
        return y, h, total, done


def expected(model: Net, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step by step in NumPy, for sequences that are computed alone."""
    w = {name: value.astype(np.float64) for name, value in model.state_dict().items()}

    def linear(name: str, rows: np.ndarray) -> np.ndarray:
        result: np.ndarray = rows @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        return result

    y, h = np.zeros((*x.shape[:2], 3)), np.zeros((len(x), H))
    done = np.zeros(len(x), int)
    for n, sequence in enumerate(x):
        total, beside = 0.0, linear("outside", sequence[0])
        for t, x_t in enumerate(sequence):
            h[n] = np.tanh(linear("new", x_t) + linear("old", h[n]) + beside)
            total += float(h[n] @ h[n])
            y[n, t], done[n] = linear("out", h[n]), t + 1
            if total > LIMIT:
                break
    return y, h, done


def data(batch: int, steps: int) -> np.ndarray:
    """Sequences that end early and late."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, steps, F)) * 0.5
    x[:, 0] *= np.linspace(0.2, 2.0, batch)[:, None]
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 1), (7, 12), (130, 9)])
def test_values(batch: int, steps: int, dtype: str) -> None:
    model, x = Net().to(dtype), data(batch, steps).astype(dtype)
    y, h, _, done = model.predict(x)
    wanted_y, wanted_h, wanted_done = expected(model, x)
    np.testing.assert_array_equal(done, wanted_done)
    np.testing.assert_allclose(y, wanted_y, atol=2e-6)
    np.testing.assert_allclose(h, wanted_h, atol=2e-6)
    for row, length in enumerate(done):
        assert not y[row, length:].any()


@pytest.mark.parametrize("way", ["rows", "mixed", "nested"])
def test_gradients(way: str) -> None:
    x = data(5, 7)
    done = Net(way).predict(x.astype(np.float32))[-1]
    assert 0 < done.min() < 7
    assert gradcheck(Net(way), x)
    assert gradcheck(Net(way), x, np.array([7, 2, 0, 1, 6]))


@pytest.mark.parametrize("way", ["rows", "mixed", "nested"])
def test_same_bits_on_any_number_of_workers(way: str) -> None:
    x = data(130, 9).astype(np.float32)
    results = []
    for workers in (1, 2, 3):
        model = Net(way)
        step = fnn.compile(model, lambda out, _: ops.mean(ops.square(out[0])), workers=workers)
        losses = [step(x, x[:, 0, 0]) for _ in range(3)]
        y, h, _, done = model.predict(x)
        results.append((losses, y.tobytes(), h.tobytes(), done.tobytes(), model.state_dict()))
    for losses, *others, state in results[1:]:
        assert (losses, *others) == results[0][:-1]
        for name, value in state.items():
            assert value.tobytes() == results[0][-1][name].tobytes()


class Repeated(nn.Module):
    """In each step another loop, of no sequences, makes the state longer until it is enough."""

    def __init__(self) -> None:
        self.new = nn.Linear(F, H)

    def forward(self, x: Any) -> Any:
        def longer(_: Any, h: Any) -> Any:
            h = ops.tanh(1.5 * h)
            return h, h

        def step(x_t: Any, h: Any) -> Any:
            start = 0.3 * (h + ops.tanh(self.new(x_t)))
            h = ops.loop(
                longer, None, start, until=lambda _, h: ops.sum(h * h, axis=1) > 1.0, steps=4
            )[1]
            return h, h

        return ops.loop(step, x, ops.zeros_state(x, H))[0]


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (5, 3)])
def test_gradients_of_a_loop_of_no_sequences_in_another(batch: int, steps: int) -> None:
    """Which steps were made is known until the gradient, be it that nothing else needs it."""
    assert gradcheck(Repeated(), data(batch, steps))


def present_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        if x[i, 0] == 0.0:
            raise ValueError("a step too many")
        y[i, 0] = x[i, 0]


def present_backward(dy: "in rows f[N,C]", dx: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        if dy[i, 0] == 0.0:
            raise ValueError("a step too many")
        dx[i, 0] = dy[i, 0]


@pytest.fixture
def present() -> Iterator[Any]:
    yield fnn.define_op("present", kernel(present_forward), kernel(present_backward))
    for name in ("present_forward", "present_backward"):
        del KERNELS[name]
    OPS.pop("present", None)


class Counting(nn.Module):
    """Ends in the step of a number in the data; `present` refuses zeros, as of a masked step."""

    def __init__(self, present: Any, mixed: bool):
        self.present, self.mixed, self.gain = present, mixed, nn.Linear(1, 1)

    def forward(self, x: Any) -> Any:
        def step(x_t: Any, state: Any) -> Any:
            h, left = state
            h = h + self.gain(self.present(x_t[:, :1]))
            if self.mixed:
                h = h + ops.mean(h, axis=0, keepdims=True)
            return self.present(h * 1.0), (h, left - 1.0)

        start = ops.zeros_state(x, 1), x[:, 0, 1:]
        y, _, done = ops.loop(step, x, start, until=lambda _, state: state[1] <= 0.0)
        return y, done


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("mixed", [False, True])
def test_no_step_is_made_when_all_sequences_have_ended(
    present: Any, mixed: bool, workers: int
) -> None:
    x = np.ones((5, 40, 2), np.float32)
    x[:, 0, 1] = 9
    model = Counting(present, mixed)
    y, done = model.predict(x)
    np.testing.assert_array_equal(done, 9)
    np.testing.assert_array_equal(y.any(axis=(0, 2)), np.arange(40) < 9)
    step = fnn.compile(model, lambda out, _: ops.mean(ops.square(out[0])), workers=workers)
    assert np.isfinite(step(x, x[:, 0, 0]))
    x[:, 0, 1] = 30
    assert np.isfinite(step(x, x[:, 0, 0]))
    x[0, 0, 1] = 31
    with pytest.raises(KernelError, match="a step too many"):
        step(x, x[:, 0, 0])


def test_what_stands_past_the_end_reaches_nothing() -> None:
    x = data(7, 12).astype(np.float32)
    dirty = x.copy()
    for row, length in enumerate(Net().predict(x)[-1]):
        dirty[row, length:] = np.nan
    results = []
    for rows in (x, dirty):
        model = Net()
        step = fnn.compile(model, lambda out, _: ops.mean(ops.square(out[0])))
        predicted = model.predict(rows)
        results.append((step(rows, x[:, 0, 0]), predicted, model.state_dict()))
    assert results[0][0] == results[1][0]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(one, other)
    for name, value in results[0][2].items():
        np.testing.assert_array_equal(results[1][2][name], value)


@pytest.mark.parametrize("way", ["rows", "mixed", "nested"])
def test_programs_of_several_sizes(way: str) -> None:
    """In the memory of a larger program: the bits of a model that knows one size only."""
    shapes = [(9, 14), (9, 6), (5, 11), (9, 14), (2, 3)]
    several = Net(way)
    step = fnn.compile(several, lambda out, _: ops.mean(ops.square(out[0])), "sgd", workers=2)
    for batch, steps in shapes:
        x = data(batch, steps).astype(np.float32)
        alone = Net(way)
        alone.load_state_dict(several.state_dict())
        other = fnn.compile(alone, lambda out, _: ops.mean(ops.square(out[0])), "sgd", workers=2)
        assert step(x, x[:, 0, 0]) == other(x, x[:, 0, 0])
        for name, value in several.state_dict().items():
            np.testing.assert_array_equal(alone.state_dict()[name], value)
        for one, two in zip(several.predict(x), alone.predict(x), strict=True):
            np.testing.assert_array_equal(one, two)


class Decoder(nn.Module):
    def __init__(self, symbols: int, hidden: int):
        self.symbols = symbols
        self.cell, self.out = nn.GRUCell(symbols, hidden), nn.Linear(hidden, symbols)

    def forward(self, h: Any) -> Any:
        def step(_: None, state: Any) -> Any:
            symbol, h = state
            h = self.cell(symbol, h)
            scores = self.out(h)
            symbol = ops.equal(scores, ops.max(scores, axis=1, keepdims=True))
            return (scores, symbol), (symbol, h)

        return ops.loop(
            step, None, (ops.zeros_state(h, self.symbols), h),
            until=lambda y, _: y[1][:, 0], steps=20,
        )  # fmt: skip


@pytest.mark.peers
def test_a_greedy_decoder_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    model = Decoder(5, 8)
    rng = np.random.default_rng(6)
    for value in model.parameters():
        value.value = 1.5 * rng.normal(size=value.shape)
    cell, out = torch.nn.GRUCell(5, 8), torch.nn.Linear(8, 5)
    state = {name: torch.tensor(value) for name, value in model.state_dict().items()}
    cell.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("cell.")})
    out.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("out.")})
    start = rng.normal(size=(40, 8)).astype(np.float32)
    (scores, symbols), (_, last), done = model.predict(start)
    assert 1 <= done.min() < done.max()
    total, wanted = torch.zeros(()), np.zeros(40, int)
    for row in range(40):
        h, symbol = torch.tensor(start[row : row + 1]), torch.zeros(1, 5)
        for t in range(20):
            h = cell(symbol, h)
            logits = out(h)
            total = total + (logits**2).sum()
            symbol = torch.nn.functional.one_hot(logits.argmax(1), 5).float()
            np.testing.assert_allclose(scores[row, t], logits[0].detach(), atol=1e-4)
            np.testing.assert_array_equal(symbols[row, t], symbol[0])
            wanted[row] = t + 1
            if symbol[0, 0]:
                break
        np.testing.assert_allclose(last[row], h[0].detach(), atol=1e-4)
    np.testing.assert_array_equal(done, wanted)
    step = fnn.compile(model, lambda y, _: ops.sum(ops.square(y[0][0])))
    found = step.gradients(start, start)
    total.backward()
    for part, module in (("cell", cell), ("out", out)):
        for name, parameter in module.named_parameters():
            expected = parameter.grad.numpy()
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found[f"{part}.{name}"], expected, atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(sequences=None), "steps to be how many there are at most"),
        (dict(sequences=None, steps=0), "got 0"),
        (dict(sequences=None, steps=2.0), "got 2.0"),
        (dict(steps=3), "either sequences or a number of steps"),
        (dict(until=lambda y, s: y), "one number for each of 2 sequences"),
        (dict(until=lambda y, s: True), "got bool"),
    ],
)
def test_errors(asked: dict[str, Any], said: str) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Any) -> Any:
            given = {"sequences": x, **asked}
            return ops.loop(lambda a, h: (h, h), state=ops.zeros_state(x, 3), **given)[0]

    with pytest.raises(ShapeError, match=said):
        Wrong().predict(np.zeros((2, 4, 3), np.float32))


def test_steps_without_sequences() -> None:
    class Powers(nn.Module):
        def forward(self, x: Any) -> Any:
            return ops.loop(lambda _, h: (h, h * 2.0), None, x, steps=5)

    y, last = Powers().predict(np.ones((3, 1), np.float32))
    np.testing.assert_array_equal(y[:, :, 0], [[1, 2, 4, 8, 16]] * 3)
    np.testing.assert_array_equal(last, [[32]] * 3)
