"""Kernels of recurrent nets against plain loops, central differences and themselves, split."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fastnn.kernels.declare import KERNELS, Array
from fastnn.kernels.gru import cpu as gru
from fastnn.kernels.lstm import cpu as lstm
from fastnn.kernels.matmul import cpu as matmul
from fastnn.kernels.recurrent.cpu import GRADIENT_SCRATCH
from fastnn.kernels.recurrent.shared import padded
from fastnn.kernels.rnn import cpu as rnn
from fastnn.testing.kernels import call
from tests import naive, naive_recurrent

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
TYPES = {"i": np.int64}
CELLS = [
    ("rnn", {"activation": 0}), ("rnn", {"activation": 1}), ("rnn", {"activation": 2}),
    ("lstm", {}), ("lstm", {"peephole": True}),
    ("gru", {"reset_before": 0}), ("gru", {"reset_before": 1}),
]  # fmt: skip


@dataclass
class Case:
    """Inputs of one cell; runs its kernels over any ranges."""

    cell: str
    options: dict[str, Any]
    sizes: tuple[int, int, int, int]  # B, T, I, H
    dtype: Any = np.float64
    reverse: int = 0
    lengths: np.ndarray | None = None
    bptt: int = 0
    states: bool = True
    arrays: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        B, T, I, H = self.sizes
        G = GATES[self.cell] * H
        shapes = {"x": (B, T, I), "w_ih": (I, G), "w_hh": (H, G), "b_ih": (G,), "b_hh": (G,)}
        shapes |= {"h0": (B, H), "c0": (B, H), "peephole": (3 * H,), "dy": (B, T, H)}
        shapes |= {"dh_n": (B, H), "dc_n": (B, H)}
        rng = np.random.default_rng(B + 100 * H)
        for name, shape in shapes.items():
            scale = 1.0 if name[0] in "xd" else 0.5 / np.sqrt(H if name == "w_hh" else 1)
            self.arrays[name] = (rng.standard_normal(shape) * scale).astype(self.dtype)
        self.options = dict(self.options)
        if not self.options.pop("peephole", False):
            self.arrays["peephole"] = None
        if not self.states:
            self.arrays["h0"] = self.arrays["c0"] = None

    def run(self, name: str, cuts: list[int], byte: int, given: dict[str, Any]) -> dict[str, Any]:
        """Run a kernel; what is not given is an output, poisoned with `byte`."""
        kernel = KERNELS[name]
        operands = dict(given)
        for key, parameter in kernel.params.items():
            if key not in operands:
                assert isinstance(parameter, Array)
                kind = TYPES.get(parameter.dtype, self.dtype)
                shape = self.shape_of(name, key)
                size = int(np.prod(shape)) * np.dtype(kind).itemsize
                operands[key] = np.full(size, byte, np.uint8).view(kind).reshape(shape)
        operands = {k: operands[k] for k in kernel.params}
        for lo, hi in itertools.pairwise(cuts):
            call(kernel, lo, hi, **operands)
        return operands

    def shape_of(self, name: str, key: str) -> tuple[int, ...]:
        B, T, I, H = self.sizes
        G = GATES[self.cell] * H
        wide = {"rnn": H, "lstm": 4 * H, "gru": 4 * H}[self.cell]
        saved = {"rnn": 0, "lstm": 5 * H, "gru": 4 * H}[self.cell]
        forward = {"rnn": rnn.rnn_scratch, "lstm": lstm.lstm_scratch, "gru": gru.gru_scratch}
        backward = {
            "rnn": rnn.rnn_backward_scratch, "lstm": lstm.lstm_backward_scratch,
            "gru": gru.gru_backward_scratch,
        }  # fmt: skip
        scratch = backward[self.cell](H) if "backward" in name else forward[self.cell](I, H)
        shapes: dict[str, tuple[int, ...]] = {
            "y": (B, T, H), "order": (B,), "saved": (B, T * padded(saved)),
            "scratch": (B, scratch), "dz": (B, T * padded(wide)), "dpeephole": (B, 3 * H),
        }  # fmt: skip
        if key in ("dbias", "dbias_ih", "dbias_hh"):
            return (B, G)
        return shapes.get(key, (B, H))

    def common(self, name: str) -> dict[str, Any]:
        known = {
            "lengths": self.lengths, "reverse": self.reverse, "bptt": self.bptt,
            "steps": self.sizes[1], **self.options, **self.arrays,
        }  # fmt: skip
        return {k: v for k, v in known.items() if k in KERNELS[name].params}

    def forward(self, cuts: list[int], byte: int = 0xFF, packed: int = 1) -> dict[str, Any]:
        given = self.common(f"{self.cell}_forward") | {"packed": packed}
        if packed:
            given |= {k: pack(self.arrays[k], False) for k in ("w_ih", "w_hh")}
        return self.run(f"{self.cell}_forward", cuts, byte, given)

    def backward(
        self, cuts: list[int], saved: dict[str, Any], byte: int = 0xFF, packed: int = 1
    ) -> dict[str, Any]:
        given = self.common(f"{self.cell}_backward")
        given |= {
            k: saved[k] for k in ("y", "saved") if k in KERNELS[f"{self.cell}_backward"].params
        }
        given["w_transposed"] = (pack if packed else turn)(self.arrays["w_hh"], True)
        if self.arrays["peephole"] is None and self.cell == "lstm":
            given["dpeephole"] = None
        return self.run(f"{self.cell}_backward", cuts, byte, given)

    def valid(self, result: dict[str, Any], name: str) -> np.ndarray:
        """An output without what is never written: padding, and steps past the end in dz."""
        if name != "dz":
            return result[name]
        B, T, _, H = self.sizes
        wide = {"rnn": H, "lstm": 4 * H, "gru": (3 if self.options.get("reset_before") else 4) * H}
        steps = result["dz"].reshape(B, T, -1)[:, :, : wide[self.cell]].copy()
        for b, length in enumerate(self.steps()):
            steps[b, length:] = 0
        return steps

    def steps(self) -> np.ndarray:
        return np.full(self.sizes[0], self.sizes[1]) if self.lengths is None else self.lengths

    def oracle(self, **changed: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        a = {k: v for k, v in {**self.arrays, **changed}.items() if v is not None}
        zeros = np.zeros((self.sizes[0], self.sizes[3]))
        states = [a.get("h0", zeros), a.get("c0", zeros)][: 2 if self.cell == "lstm" else 1]
        cell: Any = {
            "rnn": naive_recurrent.rnn_cell(self.options.get("activation", 0)),
            "lstm": naive_recurrent.lstm_cell,
            "gru": naive_recurrent.gru_cell(bool(self.options.get("reset_before"))),
        }[self.cell]
        return naive_recurrent.sequence(cell, a["x"], a, states, self.steps(), bool(self.reverse))


def pack(w: np.ndarray, transposed: bool) -> np.ndarray:
    rows, columns = w.shape[::-1] if transposed else w.shape
    packed = np.empty(matmul.packed_shape(rows, columns, w.itemsize), w.dtype)
    call(matmul.pack_panels_transposed if transposed else matmul.pack_panels, w=w, packed=packed)
    return packed


def turn(w: np.ndarray, transposed: bool) -> np.ndarray:
    """The transposed matrix as the backward kernels take it for few sequences."""
    result = np.full(w.shape[::-1], np.nan, w.dtype)
    items = w.shape[1]
    for lo, hi in itertools.pairwise(sorted({0, items // 3 // 16 * 16, items})):
        call(KERNELS["transpose_weights"], lo, hi, w=w, transposed=result)
    assert (result == w.T).all()
    return result


def lengths(batch: int, steps: int) -> np.ndarray:
    found = np.random.default_rng(batch).integers(0, steps + 1, batch)
    found[:2] = (steps, 1)[: min(batch, 2)]
    return found


@pytest.mark.parametrize(("cell", "options"), CELLS)
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1), (5, 4, 3, 7), (3, 2, 17, 16), (9, 5, 5, 33), (20, 3, 2, 50)]
)
def test_outputs_agree_with_plain_loops(
    cell: str, options: dict[str, Any], sizes: tuple[int, int, int, int], reverse: int
) -> None:
    for size, some in itertools.product((np.float32, np.float64), (False, True)):
        known = lengths(*sizes[:2]) if some else None
        case = Case(cell, options, sizes, size, reverse, known, states=some)
        got = case.forward([0, sizes[0]])
        y, finals = case.oracle()
        tolerance = 2e-6 if size == np.float32 else 1e-13
        np.testing.assert_allclose(got["y"], y, rtol=tolerance, atol=tolerance)
        for name, final in zip(("h_n", "c_n"), finals, strict=False):
            np.testing.assert_allclose(got[name], final, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("cell", "options"), CELLS)
@pytest.mark.parametrize("reverse", [0, 1])
def test_gradients_agree_with_central_differences(
    cell: str, options: dict[str, Any], reverse: int
) -> None:
    case = Case(cell, options, (3, 4, 2, 5), np.float64, reverse, np.array([4, 0, 3]))
    got = case.backward([0, 3], case.forward([0, 3]))
    incoming = [case.arrays["dh_n"], case.arrays["dc_n"]]

    def loss(name: str) -> Any:
        def value(v: np.ndarray) -> Any:
            y, finals = case.oracle(**{name: v})
            more = sum(np.sum(f * d) for f, d in zip(finals, incoming, strict=False))
            return np.sum(y * case.arrays["dy"]) + more

        return value

    def check(name: str, gradient: np.ndarray) -> None:
        want = naive.numeric_gradient(loss(name), case.arrays[name], 1.0)
        np.testing.assert_allclose(gradient, want, rtol=2e-6, atol=2e-7, err_msg=name)

    check("h0", got["dh0"])
    check("b_ih", got["dbias_ih" if cell == "gru" else "dbias"].sum(0))
    check("b_hh", got["dbias_hh" if cell == "gru" else "dbias"].sum(0))
    if cell == "lstm":
        check("c0", got["dc0"])
        if case.arrays["peephole"] is not None:
            check("peephole", got["dpeephole"].sum(0))
    gates = GATES[cell] * 5
    step = padded((1 if cell == "rnn" else 4) * 5)
    dx = np.full(case.arrays["x"].shape, np.nan)
    call(
        KERNELS["sequence_backward_input"], dz=got["dz"], lengths=case.lengths,
        w_transposed=pack(case.arrays["w_ih"], True), dx=dx, step=step, gates=gates,
    )  # fmt: skip
    check("x", dx)
    x = case.arrays["x"].reshape(3, -1)
    check("w_ih", weight_gradient(case, got["dz"], x, 2, gates, cuts=[0, 2]))


def weight_gradient(
    case: Case, dz: np.ndarray, x: np.ndarray, size: int, gates: int, *, cuts: list[int],
    shift: int = 0, byte: int = 0xFF,
) -> np.ndarray:  # fmt: skip
    """sum over valid steps of x.T @ dz by the kernel, its items cut into ranges."""
    steps = case.sizes[1]
    dw = np.full(size * gates * x.itemsize, byte, np.uint8).view(x.dtype).reshape(size, gates)
    scratch = np.full((size, GRADIENT_SCRATCH), np.nan, x.dtype)
    for lo, hi in itertools.pairwise(cuts):
        call(
            KERNELS["sequence_backward_weight"], lo, hi, x=x, dz=dz, lengths=case.lengths, dw=dw,
            before=case.arrays["h0"] if shift else None, scratch=scratch, x_step=size, x_first=0,
            dz_step=dz.shape[1] // steps, dz_first=0, column=0, columns=gates, shift=shift,
            reverse=case.reverse, steps=steps,
        )  # fmt: skip
    return dw


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("size", [1, 15, 33, 140])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weight_gradients_shift_by_one_turn(dtype: Any, size: int, reverse: int) -> None:
    known = np.array([9, 0, 1, 300, 5])
    case = Case("lstm", {}, (5, 300, 2, size), dtype, reverse, known)
    rng = np.random.default_rng(0)
    y = rng.standard_normal((5, 300, size)).astype(dtype)
    gates = 61
    dz = rng.standard_normal((5, 300, padded(gates))).astype(dtype)
    want = np.zeros((size, gates))
    for b, length in enumerate(known):
        order = list(range(length))[:: -1 if reverse else 1]
        for s, t in enumerate(order):
            before = y[b, order[s - 1]] if s else case.arrays["h0"][b]
            want += np.outer(before.astype(float), dz[b, t, :gates])
    flat = (dz.reshape(5, -1), y.reshape(5, -1), size, gates)
    got = weight_gradient(case, *flat, cuts=[0, size], shift=1)
    np.testing.assert_allclose(got, want, atol=5e-5 if dtype == np.float32 else 1e-12)
    cuts = sorted({0, size // 3 // 8 * 8, size // 2 // 8 * 8, size})
    other = weight_gradient(case, *flat, cuts=cuts, shift=1, byte=0)
    assert got.tobytes() == other.tobytes()


@pytest.mark.parametrize(("cell", "options"), CELLS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ranges_poison_and_packing_do_not_change_bits(
    cell: str, options: dict[str, Any], dtype: Any
) -> None:
    for size, steps, reverse in ((21, 6, 0), (48, 6, 1), (75, 70, 0), (75, 70, 1)):
        case = Case(cell, options, (11, steps, 5, size), dtype, reverse, lengths(11, steps))
        whole = case.forward([0, 11])
        back = case.backward([0, 11], whole)
        for cuts, byte, packed in (
            ([0, 1, 4, 5, 11], 0, 1),
            (list(range(12)), 0xFF, 0),
            ([0, 2, 5, 9, 11], 0, 0),
        ):
            other = case.forward(cuts, byte, packed)
            again = case.backward(cuts, other, byte, packed)
            for name in ("y", "h_n", "c_n"):
                if name in whole:
                    assert whole[name].tobytes() == other[name].tobytes(), name
            for name in ("dz", "dh0", "dc0", "dbias", "dbias_ih", "dbias_hh", "dpeephole"):
                if back.get(name) is not None:
                    left, right = case.valid(back, name), case.valid(again, name)
                    assert left.tobytes() == right.tobytes(), name


@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_truncation_stops_gradients_at_its_turns(cell: str, options: dict[str, Any]) -> None:
    case = Case(cell, options, (2, 6, 3, 4), bptt=2)
    case.arrays["dh_n"][:] = 0
    case.arrays["dc_n"][:] = 0
    case.arrays["dy"][:] = 0
    case.arrays["dy"][:, 3] = 1.0  # reaches turns 3 and 2 only
    got = case.backward([0, 2], case.forward([0, 2]))
    steps = case.valid(got, "dz")
    assert (np.abs(steps[:, 2:4]).max(axis=2) > 0).all()
    assert not steps[:, [0, 1, 4, 5]].any()
    assert not got["dh0"].any()


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_truncated_gradients_are_those_of_windows(
    cell: str, options: dict[str, Any], reverse: int
) -> None:
    """Each window of `bptt` turns by itself, from the states that it began with."""
    batch, steps, inputs, hidden = 3, 7, 2, 5
    case = Case(cell, options, (batch, steps, inputs, hidden), np.float64, reverse, bptt=3)
    back = case.backward([0, batch], case.forward([0, batch]))
    got = case.valid(back, "dz")
    states = {"h0": case.arrays["h0"], "c0": case.arrays["c0"]}
    for first in range(0, steps, 3):
        turns = range(first, min(first + 3, steps))
        times = sorted(steps - 1 - turn if reverse else turn for turn in turns)
        window = Case(cell, options, (batch, len(times), inputs, hidden), np.float64, reverse)
        window.arrays = case.arrays | states
        window.arrays |= {name: case.arrays[name][:, times].copy() for name in ("x", "dy")}
        if first + 3 < steps:  # nothing comes from later ones
            window.arrays |= {name: np.zeros((batch, hidden)) for name in ("dh_n", "dc_n")}
        forward = window.forward([0, batch])
        want = window.valid(window.backward([0, batch], forward), "dz")
        np.testing.assert_allclose(got[:, times], want, rtol=1e-11, atol=1e-13)
        states = {"h0": forward["h_n"], "c0": forward.get("c_n")}
    assert not back["dh0"].any()


@pytest.mark.parametrize("reverse", [0, 1])
def test_truncated_leaky_sums(reverse: int) -> None:
    """Of turns 0..4, truncated at 2: what comes from turns 2, 3 and 4 ends there."""
    dy = np.zeros((1, 5, 3))
    dy[:, 0 if reverse else 4] = 1.0  # the last turn
    dx, dh0 = np.full_like(dy, np.nan), np.full((1, 3), np.nan)
    call(
        KERNELS["leaky_backward"], lengths=None, dy=dy, dh_n=None, dx=dx, dh0=dh0, keep=0.5,
        reverse=reverse, bptt=2,
    )  # fmt: skip
    np.testing.assert_array_equal(dx[0, :: -1 if reverse else 1, 0], [0, 0, 0, 0, 0.5])
    assert not dh0.any()
    dy[:] = 0
    dy[:, 1 if reverse else 3] = 1.0
    call(
        KERNELS["leaky_backward"], lengths=None, dy=dy, dh_n=None, dx=dx, dh0=dh0, keep=0.5,
        reverse=reverse, bptt=2,
    )  # fmt: skip
    np.testing.assert_array_equal(dx[0, :: -1 if reverse else 1, 0], [0, 0, 0.25, 0.5, 0])
    assert not dh0.any()


@pytest.mark.parametrize("reverse", [0, 1])
def test_leaky_sums(reverse: int) -> None:
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((2, 4, 5, 19))
    h0, dh_n = rng.standard_normal((2, 4, 19))
    known = np.array([5, 0, 3, 1])
    y, h_n, dx, dh0 = np.full_like(x, np.nan), h0 * np.nan, x * np.nan, h0 * np.nan
    shared = {"lengths": known, "keep": 0.9, "reverse": reverse}
    call(KERNELS["leaky_forward"], x=x, h0=h0, y=y, h_n=h_n, **shared)
    want, final = naive_recurrent.leaky(x, 0.9, h0, known, bool(reverse))
    np.testing.assert_allclose(y, want, atol=1e-14)
    np.testing.assert_allclose(h_n, final, atol=1e-14)
    call(KERNELS["leaky_backward"], dy=dy, dh_n=dh_n, dx=dx, dh0=dh0, bptt=0, **shared)

    def loss(a: np.ndarray, b: np.ndarray) -> Any:
        out, last = naive_recurrent.leaky(a, 0.9, b, known, bool(reverse))
        return np.sum(out * dy) + np.sum(last * dh_n)

    want = naive.numeric_gradient(lambda v: loss(v, h0), x, 1.0)
    np.testing.assert_allclose(dx, want, atol=1e-7)
    want = naive.numeric_gradient(lambda v: loss(x, v), h0, 1.0)
    np.testing.assert_allclose(dh0, want, atol=1e-7)
