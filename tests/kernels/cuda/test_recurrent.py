"""CUDA kernels of recurrent nets against plain loops, central differences and each other."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from fastnn.kernels.cuda import exchange
from fastnn.kernels.cuda import near as near_exchange
from fastnn.kernels.cuda.device import block_number, give_way
from fastnn.kernels.declare import CUDA_KERNELS, Array
from fastnn.kernels.recurrent import cuda as recurrent
from fastnn.kernels.recurrent.cuda_layout import Layout, best, exchange_words, fits
from fastnn.runtime import _cuda
from fastnn.testing.kernels import call_cuda
from tests import naive, naive_recurrent

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
SAVED = {"rnn": 0, "lstm": 5, "gru": 4}
CELLS = [
    ("rnn", {"activation": 0}), ("rnn", {"activation": 1}), ("rnn", {"activation": 2}),
    ("lstm", {}), ("lstm", {"peephole": True}),
    ("gru", {"reset_before": 0}), ("gru", {"reset_before": 1}),
]  # fmt: skip
Arrays = dict[str, Any]


@dataclass
class Case:
    """Inputs of one cell; runs its kernels, whole sequences or turn by turn."""

    cell: str
    options: dict[str, Any]
    sizes: tuple[int, int, int]  # B, T, H
    dtype: Any = np.float64
    reverse: int = 0
    lengths: np.ndarray | None = None
    bptt: int = 0
    states: bool = True
    arrays: Arrays = field(default_factory=dict)

    def __post_init__(self) -> None:
        B, T, H = self.sizes
        G = GATES[self.cell] * H
        shapes = {"x": (B, T, 2), "w_ih": (2, G), "w_hh": (H, G), "b_ih": (G,), "b_hh": (G,)}
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
            self.arrays |= dict.fromkeys(("h0", "c0", "dh_n", "dc_n", "b_hh"))

    @property
    def before(self) -> bool:
        return bool(self.options.get("reset_before"))

    def how(self, layout: Layout) -> str:
        """What kernels are called that work so; those of two products hold no weights."""
        return replace(layout, held=layout.held and not self.before).how

    @property
    def suffix(self) -> str:
        return "_early" if self.before else ""

    def zx(self) -> np.ndarray:
        a = self.arrays
        return (a["x"].astype(float) @ a["w_ih"] + a["b_ih"]).astype(self.dtype)

    def poisoned(self, shape: tuple[int, ...], kind: Any = None, byte: int = 0xFF) -> np.ndarray:
        kind = np.dtype(kind or self.dtype)
        size = int(np.prod(shape)) * kind.itemsize
        return np.full(size, byte, np.uint8).view(kind).reshape(shape)

    def shape_of(self, key: str, layout: Layout) -> tuple[int, ...] | None:
        B, T, H = self.sizes
        wide = 2 * H if self.before else 3 * H
        shapes: dict[str, tuple[int, ...] | None] = {
            "y": (B, T, H), "before": (B, T, H), "saved": (B, T * SAVED[self.cell] * H),
            "dz": (B, T, GATES[self.cell] * H), "dz_h": (B, T, wide),
            "dz_step": (B, GATES[self.cell] * H),
            "dpeephole": None if self.arrays["peephole"] is None else (B, 3 * H),
            "reset": (B, T, H) if self.before else None, "dn": (B, T, H) if self.before else None,
            "dz_late": (B, H) if self.before else None,
        }  # fmt: skip
        return shapes.get(key, (B, H))

    def run(self, name: str, given: Arrays, layout: Layout, byte: int = 0xFF) -> Arrays:
        """Run a kernel; what is neither given nor known is an output, poisoned."""
        kernel = CUDA_KERNELS[name]
        known = {
            **self.arrays, **self.options, "zx": self.zx(), "lengths": self.lengths,
            "reverse": self.reverse, "bptt": self.bptt, "groups": layout.groups,
            "blocks": layout.blocks, "units": layout.units, **given,
        }  # fmt: skip
        operands: Arrays = {}
        for key, parameter in kernel.params.items():
            if key in known:
                operands[key] = known[key]
            else:
                assert isinstance(parameter, Array), key
                shape = self.shape_of(key, layout)
                operands[key] = None if shape is None else self.poisoned(shape, byte=byte)
        call_cuda(kernel, **operands)
        return operands

    def order(self, layout: Layout) -> Arrays:
        """The order of the sequences, and words that are as they are before the launch."""
        B, T, H = self.sizes
        order = None
        if self.lengths is not None:
            order = np.full(B, -1)
            kernel = CUDA_KERNELS["sequence_order"]
            call_cuda(kernel, lengths=self.lengths, order=order, steps=T)
        if layout.near:
            return {"order": order, "words": None}
        depth = GATES[self.cell] * H
        words = np.full(exchange_words(B, depth, 3, layout, np.dtype(self.dtype).itemsize), -1)
        call_cuda(CUDA_KERNELS["clear_words"], words=words)
        assert not words.any()
        return {"order": order, "words": words}

    def forward(self, layout: Layout, byte: int = 0xFF) -> Arrays:
        name = f"{self.cell}_{self.how(layout)}_forward{self.suffix}"
        return self.run(name, self.order(layout), layout, byte)

    def backward(self, forward: Arrays, layout: Layout, byte: int = 0xFF) -> Arrays:
        given = self.order(layout) | {k: forward[k] for k in ("y", "saved") if k in forward}
        name = f"{self.cell}_{self.how(layout)}_backward{self.suffix}"
        return self.run(name, given, layout, byte)

    def product(self, h: np.ndarray) -> np.ndarray:
        """h W_hh + b_hh, as `linear_forward` computes it."""
        bias = 0.0 if self.arrays["b_hh"] is None else self.arrays["b_hh"]
        return (h.astype(float) @ self.arrays["w_hh"] + bias).astype(self.dtype)

    def forward_by_steps(self) -> Arrays:
        layout = Layout(1, 1, 4)
        state = {}
        for name, first in (("h_n", "h0"), ("c_n", "c0")):
            state[name] = self.run("state_begin", {"given": self.arrays[first]}, layout)["state"]
        B, T, H = self.sizes
        result: Arrays = {"y": self.poisoned((B, T, H))}
        result["saved"] = self.poisoned((B, T * SAVED[self.cell] * H))
        for turn in range(T):
            given = {**result, **state, "turn": turn, "zh": self.product(state["h_n"]), "zn": None}
            if self.before:
                rh = self.run("gru_step_reset", given, layout)["rh"]
                given["zn"] = self.product(rh)
            self.run(f"{self.cell}_step_forward", given, layout)
        return {**result, **state}

    def backward_by_steps(self, forward: Arrays) -> Arrays:
        layout = Layout(1, 1, 4)
        T = self.sizes[1]
        names = ("dz", "before", "dz_step", "dh", "dc", "direct", "dpeephole", "dz_h")
        names += ("reset", "dn", "dz_late")
        shapes = {name: self.shape_of(name, layout) for name in names}
        more: Arrays = {k: None if s is None else self.poisoned(s) for k, s in shapes.items()}
        if more["dpeephole"] is not None:
            more["dpeephole"][:] = 0  # rows of sequences without steps
        more |= {k: forward[k] for k in ("y", "saved") if k in forward}
        transposed = self.arrays["w_hh"].T.astype(float)
        for turn in reversed(range(T)):
            self.run(f"{self.cell}_step_backward", {**more, "turn": turn}, layout)
            if self.before:
                drh = (more["dz_step"] @ transposed).astype(self.dtype)
                given = {**more, "drh": drh, "turn": turn}
                self.run("gru_step_backward_reset", given, layout)
            more["dh"][:] = more["dz_step"] @ transposed
        for name, carried, final in (("dh0", "dh", "dh_n"), ("dc0", "dc", "dc_n")):
            given = {"carried": more[carried], "final": self.arrays[final], "steps": T}
            given["direct"] = more["direct"] if self.cell == "gru" and name == "dh0" else None
            more[name] = self.run("state_begin_backward", given, layout)["gradient"]
        return more

    def steps(self) -> np.ndarray:
        return np.full(self.sizes[0], self.sizes[1]) if self.lengths is None else self.lengths

    def oracle(self, **changed: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        a = {k: v for k, v in {**self.arrays, **changed}.items() if v is not None}
        zeros = np.zeros((self.sizes[0], self.sizes[2]))
        a.setdefault("b_hh", np.zeros(GATES[self.cell] * self.sizes[2]))
        states = [a.get("h0", zeros), a.get("c0", zeros)][: 2 if self.cell == "lstm" else 1]
        cell: Any = {
            "rnn": naive_recurrent.rnn_cell(self.options.get("activation", 0)),
            "lstm": naive_recurrent.lstm_cell,
            "gru": naive_recurrent.gru_cell(self.before),
        }[self.cell]
        return naive_recurrent.sequence(cell, a["x"], a, states, self.steps(), bool(self.reverse))


LAYOUTS = [
    ((1, 1, 1), Layout(1, 1, 4)),
    ((5, 3, 7), Layout(2, 2, 4)),
    ((9, 2, 5), Layout(1, 1, 8)),
    ((5, 3, 7), Layout(2, 2, 4, near=True)),
    ((9, 2, 3), Layout(1, 1, 4, near=True, held=True)),
    ((2, 3, 18), Layout(1, 2, 12, held=True)),
]


@pytest.mark.parametrize(("cell", "options"), CELLS)
@pytest.mark.parametrize(("sizes", "layout"), LAYOUTS)
def test_outputs_agree_with_plain_loops(
    cell: str, options: dict[str, Any], sizes: tuple[int, int, int], layout: Layout
) -> None:
    for k, size in enumerate((np.float32, np.float64)):
        known = np.array([3, 0, 1, 2, 3]) if sizes[0] == 5 else None
        case = Case(cell, options, sizes, size, k, known, states=sizes[0] != 9)
        y, finals = case.oracle()
        tolerance = 2e-6 if size == np.float32 else 1e-13
        for got in (case.forward(layout), case.forward_by_steps()):
            np.testing.assert_allclose(got["y"], y, rtol=tolerance, atol=tolerance)
            for name, final in zip(("h_n", "c_n"), finals, strict=False):
                np.testing.assert_allclose(got[name], final, rtol=tolerance, atol=tolerance)


def weight_gradient(case: Case, got: Arrays) -> np.ndarray:
    """dW_hh from what the backward kernel wrote: plain products over all rows."""
    before = got["before"].reshape(-1, case.sizes[2])
    dz_h = got["dz_h"] if case.cell == "gru" else got["dz"]
    first = before.T @ dz_h.reshape(len(before), -1)
    if not case.before:
        return first
    return np.hstack(
        [first, got["reset"].reshape(before.shape).T @ got["dn"].reshape(before.shape)]
    )


@pytest.mark.parametrize(("by_steps", "near"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_gradients_agree_with_central_differences(
    cell: str, options: dict[str, Any], by_steps: bool, near: bool
) -> None:
    reverse = 1 if cell == "gru" else 0
    case = Case(cell, options, (3, 4, 5), np.float64, reverse, np.array([3, 0, 4]))
    layout = Layout(1, 2, 4, near, held=near)
    forward = case.forward(layout)
    got = case.backward_by_steps(forward) if by_steps else case.backward(forward, layout)
    incoming = [case.arrays["dh_n"], case.arrays["dc_n"]]

    def check(name: str, gradient: np.ndarray) -> None:
        def loss(v: np.ndarray) -> Any:
            y, finals = case.oracle(**{name: v})
            more = sum(np.sum(f * d) for f, d in zip(finals, incoming, strict=False))
            return np.sum(y * case.arrays["dy"]) + more

        want = naive.numeric_gradient(loss, case.arrays[name], 1.0)
        np.testing.assert_allclose(gradient, want, rtol=2e-6, atol=2e-7, err_msg=name)

    check("h0", got["dh0"])
    check("x", got["dz"] @ case.arrays["w_ih"].T)
    check("w_ih", np.einsum("bti,btg->ig", case.arrays["x"], got["dz"]))
    check("b_ih", got["dz"].sum((0, 1)))
    check("w_hh", weight_gradient(case, got))
    if case.before:
        check("b_hh", np.append(got["dz_h"].sum((0, 1)), got["dn"].sum((0, 1))))
    else:
        check("b_hh", got["dz_h" if cell == "gru" else "dz"].sum((0, 1)))
    if cell == "lstm":
        check("c0", got["dc0"])
        if case.arrays["peephole"] is not None:
            check("peephole", got["dpeephole"].sum(0))


OUTPUTS = ("y", "h_n", "c_n", "saved")
GRADIENTS = ("dz", "dz_h", "before", "reset", "dn", "dh0", "dc0", "dpeephole")


@pytest.mark.parametrize(("near", "held"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(("cell", "options"), CELLS[:1] + CELLS[4:])
def test_layout_neighbours_and_padding_do_not_change_bits(
    cell: str, options: dict[str, Any], near: bool, held: bool
) -> None:
    known = np.array([3, 0, 1, 2, 3])
    case = Case(cell, options, (5, 3, 7), np.float32, 0, known)
    whole = case.forward(Layout(1, 1, 8))
    back = case.backward(whole, Layout(1, 1, 8))
    other = case.forward(Layout(2, 2, 4, near, held), byte=0)
    again = case.backward(other, Layout(2, 2, 4, near, held), byte=0)
    for name, (left, right) in itertools.chain(
        ((n, (whole.get(n), other.get(n))) for n in OUTPUTS),
        ((n, (back.get(n), again.get(n))) for n in GRADIENTS),
    ):
        if left is not None and name != "saved":
            assert left.tobytes() == right.tobytes(), name
    # sequence 3 alone, without padding
    alone = Case(cell, options, (5, 3, 7), np.float32)
    for name in ("x", "dy"):
        alone.arrays[name] = alone.arrays[name][3:4, :2].copy()
    for name in ("h0", "c0", "dh_n", "dc_n"):
        alone.arrays[name] = alone.arrays[name][3:4].copy()
    alone.sizes = (1, 2, 7)
    one = alone.forward(Layout(1, 1, 8))
    one |= alone.backward(one, Layout(1, 1, 8))
    for name, value in {**whole, **back}.items():
        if name in OUTPUTS + GRADIENTS and value is not None and name != "saved":
            want = value[3:4, :2] if value.ndim == 3 else value[3:4]
            assert np.ascontiguousarray(want).tobytes() == one[name].tobytes(), name


@pytest.mark.parametrize("by_steps", [False, True])
@pytest.mark.parametrize(("cell", "options"), CELLS[:1] + CELLS[3:4] + CELLS[5:])
def test_truncation_stops_gradients_at_its_turns(
    cell: str, options: dict[str, Any], by_steps: bool
) -> None:
    case = Case(cell, options, (2, 6, 4), bptt=2)
    for name in ("dh_n", "dc_n", "dy"):
        case.arrays[name][:] = 0
    case.arrays["dy"][:, 3] = 1.0  # reaches turns 3 and 2 only
    layout = Layout(1, 1, 4)
    forward = case.forward(layout)
    got = case.backward_by_steps(forward) if by_steps else case.backward(forward, layout)
    assert (np.abs(got["dz"][:, 2:4]).max(axis=2) > 0).all()
    assert not got["dz"][:, [0, 1, 4, 5]].any()
    case.arrays["dy"][:] = 0
    case.arrays["dy"][:, 1] = 1.0  # reaches turn 0, but not the first state
    got = case.backward_by_steps(forward) if by_steps else case.backward(forward, layout)
    assert (np.abs(got["dz"][:, :2]).max(axis=2) > 0).all()
    assert not got["dh0"].any()
    assert cell != "lstm" or not got["dc0"].any()


def test_sequences_are_sorted_by_length() -> None:
    known = np.array([2, 9, 0, 2, 5, -1, 4])
    order = np.full(7, 99)
    call_cuda(CUDA_KERNELS["sequence_order"], lengths=known, order=order, steps=5)
    assert order.tolist() == [1, 4, 6, 0, 3, 2, 5]


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("bptt", [0, 2])
def test_leaky_sums(reverse: int, bptt: int) -> None:
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((2, 3, 5, 7))
    h0, dh_n = rng.standard_normal((2, 3, 7))
    known = np.array([5, 0, 3])
    y, h_n, dx, dh0 = np.full_like(x, np.nan), h0 * np.nan, x * np.nan, h0 * np.nan
    shared = {"lengths": known, "keep": 0.9, "reverse": reverse}
    call_cuda(CUDA_KERNELS["leaky_forward"], x=x, h0=h0, y=y, h_n=h_n, **shared)
    want, final = naive_recurrent.leaky(x, 0.9, h0, known, bool(reverse))
    np.testing.assert_allclose(y, want, atol=1e-14)
    np.testing.assert_allclose(h_n, final, atol=1e-14)
    kernel = CUDA_KERNELS["leaky_backward"]
    call_cuda(kernel, dy=dy, dh_n=dh_n, dx=dx, dh0=dh0, bptt=bptt, **shared)
    if bptt:
        assert not dh0[[0, 2]].any()
        np.testing.assert_array_equal(dh0[1], dh_n[1])
        flow = np.zeros_like(dy)
        for b, length in enumerate(known):
            g = dh_n[b].copy()
            for turn in range(length - 1, -1, -1):
                t = length - 1 - turn if reverse else turn
                g += dy[b, t]
                flow[b, t] = 0.1 * g
                g = 0 * g if turn % bptt == 0 else 0.9 * g
        np.testing.assert_allclose(dx, flow, atol=1e-14)
        return

    def loss(a: np.ndarray, b: np.ndarray) -> Any:
        out, last = naive_recurrent.leaky(a, 0.9, b, known, bool(reverse))
        return np.sum(out * dy) + np.sum(last * dh_n)

    np.testing.assert_allclose(dx, naive.numeric_gradient(lambda v: loss(v, h0), x, 1.0), atol=1e-7)
    np.testing.assert_allclose(
        dh0, naive.numeric_gradient(lambda v: loss(x, v), h0, 1.0), atol=1e-7
    )


def test_swapping_time_and_batch() -> None:
    x = np.random.default_rng(0).standard_normal((3, 5, 2))
    y = np.full((5, 3, 2), np.nan)
    call_cuda(CUDA_KERNELS["swap_time_forward"], x=x, y=y)
    np.testing.assert_array_equal(y, x.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("batch", "hidden", "gates", "itemsize", "want"),
    [
        (16, 512, 4, 4, Layout(4, 32, 16)),  # four tiles, a group of blocks each
        (64, 256, 4, 4, Layout(16, 8, 32)),
        (1, 3, 1, 4, Layout(1, 1, 4)),
        (16, 4096, 4, 4, None),  # 256 MiB of weights
        (16, 512, 4, 8, Layout(4, 32, 16)),
    ],
)
def test_layouts_fit_the_device(
    batch: int, hidden: int, gates: int, itemsize: int, want: Layout | None
) -> None:
    layout = fits(batch, hidden, gates, itemsize, 132, 227 * 1024)
    if itemsize == 8:  # twice the bytes: fewer groups, of more blocks
        assert layout is not None
        assert want is not None
        assert layout.groups < want.groups
    else:
        assert layout == want
    for found in [fits(batch, hidden, gates, itemsize, n, 48 * 1024) for n in (1, 7, 132)]:
        if found is not None:
            assert found.groups * found.blocks <= 132
            assert found.blocks * found.units >= hidden


def test_clusters_are_taken_where_they_fit_and_pay() -> None:
    h200, gates = (132, 232_448, 8), 4

    def chosen(batch: int, hidden: int, backward: bool, limits: tuple[int, ...] = h200) -> Layout:
        far = fits(batch, hidden, gates, 4, *limits[:2])
        assert far is not None
        return best(far, batch, hidden, gates, 4, limits, 2, backward)

    assert chosen(64, 256, False) == Layout(16, 8, 32, near=True)  # too many weights to hold
    assert not chosen(64, 256, True).near  # the words of four gates don't fit beside the weights
    assert chosen(64, 128, True) == Layout(16, 8, 16, near=True, held=True)
    for size, held in ((4, True), (8, False)):
        far = fits(32, 256, gates, size, 132, 232_448)
        assert far is not None
        assert best(far, 32, 256, gates, size, h200, 2, True).held == held
        assert not best(far, 32, 256, gates, size, h200, 2, True, holds=False).held
    assert not chosen(16, 512, False).near  # four times as many blocks share the work elsewhere
    for limits in (h200[:2], (132, 232_448, 1)):
        assert not chosen(64, 128, True, limits).near
    for batch, hidden, way in itertools.product((1, 5, 64, 300), (1, 33, 200), (False, True)):
        layout = chosen(batch, hidden, way)
        assert not layout.near or layout.blocks <= 8
        assert layout.blocks * layout.units >= hidden


def test_steps_past_the_end_become_zeros() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 2))
    x[1, 2:] = np.nan
    known = np.array([4, 2, 0])
    y = np.full_like(x, np.nan)
    call_cuda(CUDA_KERNELS["valid_steps"], x=x, lengths=known, y=y)
    want = np.where(np.arange(4)[:, None] < known[:, None, None], x, 0.0)
    np.testing.assert_array_equal(y, want)


@pytest.mark.skipif(not _cuda.simulated(), reason="a device's blocks can't be slowed down")
@pytest.mark.parametrize(("slow", "near"), [(0, False), (1, False), (1, True)])
@pytest.mark.parametrize("bptt", [0, 2])
@pytest.mark.parametrize(("cell", "options"), CELLS[:1] + CELLS[4:])
def test_blocks_wait_for_the_slowest(
    monkeypatch: pytest.MonkeyPatch,
    cell: str,
    options: dict[str, Any],
    bptt: int,
    slow: int,
    near: bool,
) -> None:
    """Also where a block has no use for what the others computed: it may change theirs."""
    case = Case(cell, options, (2, 4, 6), bptt=bptt)
    layout = Layout(1, 2, 4, near)
    whole = case.forward(layout)
    back = case.backward(whole, layout)

    def late(function: Any) -> Any:
        def wrapped(*arguments: Any) -> Any:
            for _ in range(30 if block_number() == slow else 0):
                give_way()
            return function(*arguments)

        return wrapped

    module = importlib.import_module(f"fastnn.kernels.{cell}.cuda")
    slowed = [(module, "load_columns"), (module, "load_rows"), (recurrent, "add_parts")]
    slowed += [(exchange, "load_words"), (near_exchange, "load_near")]
    for place, name in slowed:
        monkeypatch.setattr(place, name, late(getattr(place, name)))
    other = case.forward(layout)
    again = case.backward(other, layout)
    for name in OUTPUTS + GRADIENTS:
        for left, right in ((whole, other), (back, again)):
            if left.get(name) is not None:
                assert left[name].tobytes() == right[name].tobytes(), name
