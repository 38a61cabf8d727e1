"""How recurrent nets are laid out on a GPU, and what depends on it."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np
import pytest

from fastnn.kernels.cuda import exchange
from fastnn.kernels.cuda import near as near_exchange
from fastnn.kernels.cuda.device import block_number, give_way
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.recurrent import cuda_products as products
from fastnn.kernels.recurrent.cuda_layout import Layout, best, fits
from fastnn.runtime import _cuda
from fastnn.runtime.cuda import compiler
from fastnn.testing.kernels import call_cuda
from tests.kernels.cuda.recurrent import CELLS, Case

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
        assert best(far, 32, 256, gates, 4, h200, 2, True, half=True).how.endswith("_half")
    whole = (132, 232_448, 16)  # a group takes all multiprocessors that are near each other
    assert chosen(16, 256, False, whole) == Layout(4, 16, 16, near=True, held=True)
    assert chosen(64, 256, False, whole).blocks == 8
    # weights of 16 bits take half of the memory
    shared = [fits(32, 512, gates, 4, *h200[:2], half=half) for half in (False, True)]
    assert [layout and layout.groups for layout in shared] == [5, 8]
    assert not chosen(16, 512, False).near  # four times as many blocks share the work elsewhere
    for limits in (h200[:2], (132, 232_448, 1)):
        assert not chosen(64, 128, True, limits).near
    for batch, hidden, way in itertools.product((1, 5, 64, 300), (1, 33, 200), (False, True)):
        layout = chosen(batch, hidden, way)
        assert not layout.near or layout.blocks <= 8
        assert layout.blocks * layout.units >= hidden


def test_blocks_have_fewer_threads_in_float64() -> None:
    """Numbers take two registers each, and none is kept in memory for lack of them."""
    sizes = {"B": 4, "H": 256, "groups": 1, "blocks": 4, "units": 64}
    kernel = CUDA_KERNELS["lstm_cluster_backward"]
    for dtype, threads in (("float32", 512), ("float64", 256)):
        assert kernel.bounds_in(dtype) == threads
        assert compiler.launch_of(kernel, sizes, dtype).threads == (threads, 1, 1)


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
    slowed = [(module, "team_of"), (products, "add_parts")]
    slowed += [(exchange, "load_words"), (near_exchange, "load_near")]
    for place, name in slowed:
        monkeypatch.setattr(place, name, late(getattr(place, name)))
    other = case.forward(layout)
    again = case.backward(other, layout)
    for name in OUTPUTS + GRADIENTS:
        for left, right in ((whole, other), (back, again)):
            if left.get(name) is not None:
                assert left[name].tobytes() == right[name].tobytes(), name
