"""Recurrent layers against PyTorch and plain loops, and bit for bit against themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import errors, nn, ops, optim
from fastnn.graph.value import Value
from tests import naive_recurrent

KINDS = ("RNN", "LSTM", "GRU")
LENGTHS = np.array([9, 3, 1, 5, 8, 9])


class Model(nn.Module):
    """A recurrent layer; its outputs, and final states where `last` is set."""

    def __init__(self, layer: nn.Module, last: bool = False):
        self.layer, self.last = layer, last

    def forward(self, x: Value, lengths: Any = None) -> Any:
        y, states = self.layer(x, lengths=lengths)
        if not self.last:
            return y
        flat = [v for s in states for v in (s if isinstance(s, tuple) else (s,))]
        return ops.concatenate(*flat)


def weighted_sum(y: Value, weight: Value) -> Value:
    return ops.total(ops.multiply(y, weight))


def gradients(
    model: Model, x: np.ndarray, weight: np.ndarray, lengths: Any = None, workers: int = 1
) -> dict[str, np.ndarray]:
    """Gradients of sum(outputs * weight) to all parameters, after one step that changes nothing."""
    dtype = x.dtype.name
    trainer = fnn.Trainer(
        model,
        weighted_sum,
        optim.SGD(lr=0.0),
        workers=workers,
        dtype=dtype,
        seed=3,
        keep_gradients=True,
    )
    data = x if lengths is None else (x, lengths)
    trainer.fit(data, weight, epochs=1, batch_size=len(x), shuffle=False, verbose=0)
    return {n: np.array(p.grad) for n, p in model.named_parameters().items()}


def outputs(model: Model, x: np.ndarray, lengths: Any = None) -> np.ndarray:
    found: np.ndarray = model.predict(x) if lengths is None else model.predict(x, lengths)
    return found


@pytest.mark.peers
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (1, True), (2, False), (3, True)])
@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_agrees_with_pytorch(
    kind: str, dtype: str, layers: int, both: bool, some: bool, last: bool
) -> None:
    torch = pytest.importorskip("torch")
    batch, steps, inputs, hidden = 6, 9, 5, 21
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, steps, inputs)).astype(dtype)
    model = Model(getattr(nn, kind)(inputs, hidden, layers, bidirectional=both), last)
    lengths = LENGTHS if some else None
    width = hidden * (2 if both else 1)
    if last:
        states = layers * (2 if both else 1) * (2 if kind == "LSTM" else 1)
        weight = rng.standard_normal((batch, states * hidden)).astype(dtype)
    else:
        weight = rng.standard_normal((batch, steps, width)).astype(dtype)
    mine = gradients(model, x, weight, lengths)
    y = outputs(model, x, lengths)

    peer = getattr(torch.nn, kind)(
        inputs, hidden, layers, batch_first=True, bidirectional=both, dtype=getattr(torch, dtype)
    )
    state = model.layer.state_dict()
    peer.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    given = torch.from_numpy(x)
    pack, unpack = (
        getattr(torch.nn.utils.rnn, n) for n in ("pack_padded_sequence", "pad_packed_sequence")
    )
    if some:
        given = pack(given, torch.from_numpy(LENGTHS), batch_first=True, enforce_sorted=False)
    out, finals = peer(given)
    if some:
        out, _ = unpack(out, batch_first=True, total_length=steps)
    if last:
        finals = finals if kind == "LSTM" else (finals,)
        out = torch.cat([part for pair in zip(*finals, strict=True) for part in pair], dim=1)
    (out * torch.from_numpy(weight)).sum().backward()
    tolerance = 1e-5 if dtype == "float32" else 1e-10

    def close(got: np.ndarray, want: np.ndarray, name: str) -> None:
        scale = np.abs(want).max()
        assert np.abs(got - want).max() <= tolerance * scale, name

    close(y, out.detach().numpy(), "outputs")
    for name, parameter in peer.named_parameters():
        close(mine[f"layer.{name}"], parameter.grad.numpy(), name)


@pytest.mark.parametrize("kind", [*KINDS, "SCRN"])
def test_workers_padding_and_neighbours_do_not_change_bits(kind: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 9, 5)).astype(np.float32)
    for b, length in enumerate(LENGTHS):
        x[b, length:] = 1e30  # must not be read
    options = {"context_size": 6} if kind == "SCRN" else {}
    layer = getattr(nn, kind)(5, 18, 2, bidirectional=True, **options)
    model = Model(layer)
    width = layer.output_size
    weight = rng.standard_normal((6, 9, width)).astype(np.float32)
    reference = gradients(model, x, weight, LENGTHS)
    y = outputs(model, x, LENGTHS)
    for b, length in enumerate(LENGTHS):
        assert not y[b, length:].any()
        alone = outputs(model, x[b : b + 1, :length])
        assert alone.tobytes() == y[b : b + 1, :length].tobytes()
    for workers in (2, 3, 4):
        again = gradients(model, x, weight, LENGTHS, workers)
        for name, value in reference.items():
            assert value.tobytes() == again[name].tobytes(), name
    longer = np.concatenate([x, np.full((6, 4, 5), -1e30, np.float32)], axis=1)
    weight = np.concatenate([weight, np.ones((6, 4, width), np.float32)], axis=1)
    assert outputs(model, longer, LENGTHS)[:, :9].tobytes() == y.tobytes()
    if kind != "SCRN":  # its linear layer sums over all steps, with zeros past the end
        padded = gradients(model, longer, weight, LENGTHS)
        for name, value in reference.items():
            assert value.tobytes() == padded[name].tobytes(), name


def test_scrn_agrees_with_plain_loops() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((6, 9, 5))
    model = Model(nn.SCRN(5, 12, context_size=7, alpha=0.9))
    model.store("float64")
    arrays = {n: v.T.astype(float) for n, v in model.layer.state_dict().items()}
    w = {"B": arrays["weight_context_l0"], "R": arrays["weight_hh_l0"]}
    w |= {"A": arrays["weight_ih_l0"][:5], "P": arrays["weight_ih_l0"][5:]}
    zeros = np.zeros((6, 12)), np.zeros((6, 7))
    h, s = naive_recurrent.scrn(x, w, *zeros, 0.9, LENGTHS)
    got = outputs(model, x, LENGTHS)
    np.testing.assert_allclose(got, np.concatenate([h, s], axis=2), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_is_one_step_of_its_layer(kind: str) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            self.cell = getattr(nn, f"{kind}Cell")(5, 8)

        def forward(self, x: Value) -> Any:
            first = ops.columns(x, 0, 5)
            state = self.cell(ops.columns(x, 5, 10), self.cell(first))
            return state[0] if isinstance(state, tuple) else state

    x = np.random.default_rng(3).standard_normal((4, 2, 5)).astype(np.float32)
    steps, model = Steps(), Model(getattr(nn, kind)(5, 8))
    model.layer.load_state_dict({f"{n[5:]}_l0": v for n, v in steps.state_dict().items()})
    want = outputs(model, x)[:, 1]
    np.testing.assert_allclose(steps.predict(x.reshape(4, 10)), want, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_carried_from_batch_to_batch(kind: str) -> None:
    x = np.random.default_rng(4).standard_normal((3, 8, 5)).astype(np.float32)
    whole, parts = (
        Model(getattr(nn, kind)(5, 10, 2)),
        Model(getattr(nn, kind)(5, 10, 2, stateful=3)),
    )
    want = outputs(whole, x)
    arrays = parts.state_dict()
    parts.load_state_dict({**arrays, **whole.state_dict()})
    for _ in range(2):
        got = [parts.predict(x[:, t : t + 4], batch_size=3) for t in (0, 4)]
        assert np.concatenate(got, axis=1).tobytes() == want.tobytes()
        parts.layer.reset_state()


@pytest.mark.parametrize("kind", KINDS)
def test_windows_of_a_long_sequence_need_the_memory_of_one(kind: str) -> None:
    """10,000 steps in windows of 50: truncated backpropagation as `bptt=50` does it."""
    steps, window = 10_000, 50
    x = np.random.default_rng(8).standard_normal((2, steps, 5)).astype(np.float32)
    weight = np.random.default_rng(9).standard_normal((2, steps, 10)).astype(np.float32)

    def compiled(**options: Any) -> tuple[Model, Any]:
        model = Model(getattr(nn, kind)(5, 10, **options))
        return model, fnn.compile(model, weighted_sum, optim.SGD(lr=0.0), workers=1)

    def memory(step: Any) -> int:
        return max(ready.bound.program.sizes["work"] for ready in step._ready.values())

    (model, whole), (carrying, parts) = compiled(bptt=window), compiled(stateful=2)
    want = whole.gradients(x, weight)
    carrying.load_state_dict({**carrying.state_dict(), **model.state_dict()})
    total = {name: np.zeros(gradient.shape) for name, gradient in want.items()}
    first = 0
    for t in range(0, steps, window):
        part = x[:, t : t + window], weight[:, t : t + window]
        for name, gradient in parts.gradients(*part).items():
            total[name] += gradient
        parts(*part)  # carries the states on; the learning rate is 0
        first = first or memory(parts)
    for name, gradient in want.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(total[name], gradient, atol=1e-4 * scale, err_msg=name)
    assert memory(parts) == first < memory(whole) / 50


def test_time_first_is_the_same_turned() -> None:
    x = np.random.default_rng(5).standard_normal((4, 6, 5)).astype(np.float32)

    class Turned(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.GRU(5, 9, batch_first=False)

        def forward(self, x: Value) -> Any:
            return ops.swap_time(self.layer(ops.swap_time(x))[0])

    turned, straight = Turned(), Model(nn.GRU(5, 9))
    straight.load_state_dict(turned.state_dict())
    assert turned.predict(x).tobytes() == outputs(straight, x).tobytes()


def test_errors_name_the_remedy() -> None:
    x = np.zeros((2, 3, 5), np.float32)
    with pytest.raises(errors.ShapeError, match="input_size"):
        outputs(Model(nn.LSTM(4, 8)), x)
    with pytest.raises(errors.DataError, match=r"0\.\.3"):
        outputs(Model(nn.LSTM(5, 8)), x, np.array([4, 1]))
    with pytest.raises(errors.OptionError, match="merge"):
        nn.RNN(5, 8, bidirectional=True, merge="mean")
    with pytest.raises(errors.OptionError, match="merge='sum' adds two directions"):
        nn.RNN(5, 8, merge="sum")
    with pytest.raises(errors.OptionError, match="dropout acts between layers, and there is one"):
        nn.GRU(5, 8, dropout=0.5)
    with pytest.raises(errors.OptionError, match="reset"):
        nn.GRU(5, 8, reset="never")


def test_initial_values() -> None:
    irnn = nn.RNN(5, 8, nonlinearity="relu", identity_init=1.0)
    irnn.initialize()
    np.testing.assert_array_equal(irnn.weight_hh_l0.value, np.eye(8))
    lstm = nn.LSTM(5, 8, forget_bias=1.0)
    lstm.initialize()
    bias = lstm.bias_ih_l0.value + lstm.bias_hh_l0.value
    np.testing.assert_array_equal(bias[8:16], np.ones(8))
    assert (np.abs(bias[:8]) <= 2 / np.sqrt(8)).all()


def test_what_recurrent_layers_share_is_no_layer() -> None:
    with pytest.raises(
        errors.OptionError, match=r"Recurrent\(.*expected a kind of recurrent layer"
    ):
        nn.Recurrent(3, 4).predict(np.zeros((2, 5, 3), np.float32))


class Started(nn.Module):
    """A layer with initial states, shape (batch, layers and directions, units) each."""

    def __init__(self, kind: str, layers: int, both: bool, start: Any):
        self.layer = getattr(nn, kind)(4, 3, layers, bidirectional=both)
        self.start = start

    def forward(self, x: Value, *states: Value) -> Value:
        stacked = [ops.permute(s, 1, 0, 2) for s in states]
        return self.layer(x, self.start(stacked))[0]


STARTS: dict[str, Any] = {
    "by layer": lambda s: [
        tuple(v[k] for v in s) if len(s) == 2 else s[0][k] for k in range(s[0].shape[0])
    ],
    "stacked": lambda s: tuple(s) if len(s) == 2 else s[0],
}


@pytest.mark.peers
@pytest.mark.parametrize("form", STARTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layers", "both"), [(1, False), (1, True), (2, False), (3, True)])
def test_initial_states_of_both_forms_agree_with_pytorch(
    form: str, kind: str, layers: int, both: bool
) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    count = layers * (2 if both else 1)
    x = rng.standard_normal((6, 5, 4)).astype(np.float32)
    shape = (2 if kind == "LSTM" else 1, 6, count, 3)
    states = list(rng.standard_normal(shape).astype(np.float32))
    model = Started(kind, layers, both, STARTS[form])
    peer = getattr(torch.nn, kind)(4, 3, layers, batch_first=True, bidirectional=both)
    peer.load_state_dict({k: torch.tensor(v) for k, v in model.layer.state_dict().items()})
    theirs = [torch.tensor(s.transpose(1, 0, 2).copy()) for s in states]
    want, _ = peer(torch.tensor(x), tuple(theirs) if len(theirs) == 2 else theirs[0])
    got = model.predict([x, *states])
    np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "start", "message"),
    [
        ("LSTM", lambda s: [s[0][0], s[0][1]], r"direction a pair \(h, c\), got a value of sh"),
        ("LSTM", lambda s: [(s[0][0],), (s[0][1],)], r"a pair \(h, c\), got a tuple of 1"),
        ("LSTM", lambda s: (s[0], s[0], s[0]), "a list of 2 states.*got a tuple of 3"),
        ("LSTM", lambda s: (s[0][:1], s[0]), r"states of shape \(2, batch, units\).*got .*1, 6"),
        ("LSTM", lambda s: s[0], r"a list of 2 states.*got a value of shape \(2, 6, 3\)"),
        ("LSTM", lambda s: 3, "a list of 2 states.*got 3"),
        ("GRU", lambda s: [(s[0][0], s[0][0])] * 2, r"\(batch, units\), got a tuple of 2"),
        ("GRU", lambda s: [s[0][0]], "a list of 2 states.*got a list of 1"),
        ("GRU", lambda s: s[0][0], r"a list of 2 states.*got a value of shape \(6, 3\)"),
        ("RNN", lambda s: s[0][:1], r"stacked states of shape \(2, batch, units\)"),
    ],
)  # fmt: skip
def test_initial_states_of_another_form_are_refused(kind: str, start: Any, message: str) -> None:
    x, states = np.ones((6, 5, 4), np.float32), np.ones((6, 2, 3), np.float32)
    with pytest.raises(errors.ShapeError, match=message):
        Started(kind, 2, False, start).predict([x, states])


class Unpacked(nn.Module):
    """Takes an LSTM's result apart as PyTorch has it, or as it is."""

    def __init__(self, as_torch: bool):
        self.layer, self.as_torch = nn.LSTM(3, 4), as_torch

    def forward(self, x: Value) -> Value:
        if self.as_torch:
            y, (h, c) = self.layer(x)
        else:
            y, [(h, c)] = self.layer(x)
        return y[:, -1] - h + ops.multiply(c, 0.0)


def test_final_states_taken_apart_as_in_pytorch_name_the_remedy() -> None:
    x = np.ones((2, 5, 3), np.float32)
    assert not Unpacked(False).predict(x).any()
    with pytest.raises(errors.ShapeError, match=r"Unpacked.forward.*y, \[\(h, c\)\] = layer"):
        Unpacked(True).predict(x)
